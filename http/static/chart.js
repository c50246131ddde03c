// Revenue as bars with a line for the year before, and small lines for the rows of a table. Drawn as SVG.

import { h, svg, write } from "./dom.js";
import { growth, headOf, money, rough } from "./money.js";
import { bareMonth } from "./periods.js";

const HEIGHT = 232;
const EDGE = { top: 12, right: 4, bottom: 40, left: 48 };
const PAPER = 680; // px: a page's width, between its margins
const LABEL = 40; // px that the name of a month needs
const STEPS = { month: [1, 2, 3, 6, 12], quarter: [3, 6, 12, 24, 60], year: [12, 24, 60, 120, 240, 600] };

/** A chart in `figure`. It is read by eye, by keyboard (each period in turn), and as a table. */
export class RevenueChart {
  #bars = [];
  #chosen = null;
  #shown = "";
  #plot;
  #tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  #body = h("tbody");
  #caption = h("caption", { class: "visually-hidden" });
  #before = h("th", { scope: "col", class: "number" }, "Year before");

  constructor(figure) {
    this.#plot = h("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": "Revenue, period by period", "aria-valuemin": "0",
      keydown: (event) => this.#turn(event),
      focus: () => this.#choose(this.#chosen ?? this.#bars.length - 1),
      blur: () => this.#choose(null),
      pointermove: (event) => this.#choose(this.#under(event)),
      pointerdown: (event) => this.#choose(this.#under(event)),
      pointerleave: () => document.activeElement !== this.#plot && this.#choose(null),
    });
    const heads = h("tr", {}, h("th", { scope: "col" }, "Period"), h("th", { scope: "col", class: "number" }, headOf("Revenue")), this.#before, h("th", { scope: "col", class: "number" }, "Change"));
    figure.append(
      this.#plot,
      h("details", { class: "behind" }, h("summary", {}, "The figures as a table"), h("table", {}, this.#caption, h("thead", {}, heads), this.#body)),
    );
    new ResizeObserver(() => this.#draw()).observe(this.#plot);
    addEventListener("beforeprint", () => this.#draw(PAPER));
    addEventListener("afterprint", () => this.#draw());
  }

  /** Show bars, as `Revenue.bars` makes them, under a title. */
  show(bars, title) {
    this.#bars = bars;
    write(this.#caption, title);
    this.#draw();
  }

  #draw(width = Math.floor(this.#plot.clientWidth)) {
    const shown = `${width} ${this.#bars.map((bar) => `${bar.start} ${bar.cents} ${bar.before}`)}`;
    if (!width || shown === this.#shown) return;
    this.#shown = shown;
    this.#plot.replaceChildren(draw(this.#bars, width), this.#tip);
    this.#plot.setAttribute("aria-valuemax", String(Math.max(0, this.#bars.length - 1)));
    this.#body.replaceChildren(...this.#bars.map(row));
    this.#choose(this.#chosen === null ? null : Math.min(this.#chosen, this.#bars.length - 1));
  }

  #under(event) {
    const { left, width } = this.#plot.getBoundingClientRect();
    const at = (event.clientX - left - EDGE.left) / (width - EDGE.left - EDGE.right);
    return Math.max(0, Math.min(this.#bars.length - 1, Math.floor(at * this.#bars.length)));
  }

  #turn(event) {
    const last = this.#bars.length - 1;
    const here = this.#chosen ?? last;
    const goal = { ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1, Home: 0, End: last }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    this.#choose(Math.max(0, Math.min(last, goal)));
  }

  /** Tell one period's figures; null for none. */
  #choose(index) {
    this.#chosen = index;
    const bar = this.#bars[index ?? this.#bars.length - 1];
    this.#plot.setAttribute("aria-valuenow", String(index ?? Math.max(0, this.#bars.length - 1)));
    this.#plot.setAttribute("aria-valuetext", bar ? told(bar).join(", ") : "nothing");
    const columns = this.#plot.querySelectorAll(".column");
    columns.forEach((column, each) => column.classList.toggle("chosen", each === index));
    this.#tip.hidden = index === null || !bar;
    if (this.#tip.hidden) return;
    const [name, ...figures] = told(bar);
    this.#tip.replaceChildren(h("strong", {}, name), ...figures.map((each) => h("span", {}, each)));
    const { clientWidth } = this.#plot;
    const middle = EDGE.left + ((index + 0.5) / this.#bars.length) * (clientWidth - EDGE.left - EDGE.right);
    const half = this.#tip.offsetWidth / 2;
    this.#tip.style.left = `${Math.max(half, Math.min(clientWidth - half, middle))}px`;
  }
}

function told(bar) {
  const change = bar.before === null ? "" : growth(bar.cents, bar.before);
  const before = bar.before === null ? [] : [`a year before ${money(bar.before)}${change && ` (${change})`}`];
  return [bar.open ? `${bar.name}, so far` : bar.name, money(bar.cents), ...before];
}

function row(bar) {
  const before = bar.before === null ? "–" : money(bar.before);
  const change = bar.before === null ? "–" : growth(bar.cents, bar.before) || "–";
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, bar.open ? `${bar.name}, so far` : bar.name),
    ...[money(bar.cents), before, change].map((text) => h("td", { class: "number" }, text)),
  );
}

// --- drawing ---------------------------------------------------------------------------------

/** The picture. It is hidden from those who listen: the slider and the table say the same. */
function draw(bars, width) {
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, "aria-hidden": "true", focusable: "false" });
  if (!bars.length) return picture;
  const amounts = bars.flatMap((bar) => [Number(bar.cents), Number(bar.before ?? 0n)]);
  const ticks = ticksOf(Math.min(0, ...amounts), Math.max(0, ...amounts));
  const [low, high] = [ticks[0], ticks.at(-1)];
  const y = (cents) => EDGE.top + ((high - cents) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const each = (width - EDGE.left - EDGE.right) / bars.length;
  const x = (index) => EDGE.left + index * each;
  picture.append(...ticks.flatMap((tick) => [
    svg("line", { class: tick === 0 ? "zero" : "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "axis", x: EDGE.left - 8, y: y(tick) + 4, "text-anchor": "end" }, rough(tick)),
  ]));
  picture.append(...bars.map((bar, index) => column(bar, x(index), each, y)));
  picture.append(...line(bars, (index) => x(index) + each / 2, y), ...names(bars, x, each));
  return picture;
}

function column(bar, left, each, y) {
  const gap = Math.min(each * 0.3, 16);
  const cents = Number(bar.cents);
  const [top, bottom] = cents < 0 ? [y(0), y(cents)] : [y(cents), y(0)];
  const height = cents ? Math.max(bottom - top, 1) : 0;
  return svg(
    "g",
    { class: bar.open ? "column open" : "column" },
    svg("rect", { class: "behind-bar", x: left, width: each, y: EDGE.top, height: HEIGHT - EDGE.top - EDGE.bottom }),
    svg("rect", { class: "bar", x: left + gap / 2, width: Math.max(each - gap, 1), y: bottom - height, height, rx: Math.min(2, each / 6) }),
  );
}

/** The year before: a line over the bars, with a rim so that it is seen on them. */
function line(bars, x, y) {
  const places = bars.map((bar, index) => (bar.before === null ? null : `${x(index)} ${y(Number(bar.before))}`));
  const known = places.findIndex(Boolean);
  if (known < 0) return [];
  const points = places.slice(known).filter(Boolean);
  const d = points.length > 1 ? `M${points.join("L")}` : `M${points[0]}h0`;
  return ["rim", "before"].map((name) => svg("path", { class: name, d }));
}

/** The names below, as many as find room; the year where it begins. */
function names(bars, x, each) {
  const { by } = bars[0];
  const months = STEPS[by][0];
  const step = STEPS[by].find((number) => (number / months) * each >= LABEL) ?? STEPS[by].at(-1);
  let year = null;
  return bars.flatMap((bar, index) => {
    if (bar.start % step) return [];
    const middle = x(index) + each / 2;
    const its = String(Math.floor(bar.start / 12));
    const text = { month: bareMonth(bar.start), quarter: bar.name.split(" ")[0], year: its }[by];
    const shown = [svg("text", { class: "axis", x: middle, y: HEIGHT - 20, "text-anchor": "middle" }, text)];
    if (by !== "year" && its !== year) {
      shown.push(svg("text", { class: "axis", x: middle, y: HEIGHT - 4, "text-anchor": "middle" }, its));
    }
    year = its;
    return shown;
  });
}

/** Round numbers from `low` to `high` or beyond, some four of them; 0 is among them. */
function ticksOf(low, high) {
  const least = Math.max((high - low) / 4, 1);
  const size = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * size).find((each) => each >= least);
  const first = Math.floor(low / step);
  const last = Math.max(Math.ceil(high / step), first + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

const SMALL = { width: 104, height: 20 };

/** A small line for amounts of cents, one after another; `says` tells it to those who listen. */
export function sparkline(cents, says) {
  const amounts = cents.map(Number);
  const [low, high] = [Math.min(0, ...amounts), Math.max(1, ...amounts)];
  const x = (index) => 2 + (index / Math.max(amounts.length - 1, 1)) * (SMALL.width - 4);
  const y = (amount) => 2 + ((high - amount) / (high - low)) * (SMALL.height - 4);
  const points = amounts.map((amount, index) => `${x(index).toFixed(1)},${y(amount).toFixed(1)}`);
  return svg(
    "svg",
    { class: "spark", role: "img", "aria-label": says, viewBox: `0 0 ${SMALL.width} ${SMALL.height}`, ...SMALL },
    svg("polygon", { points: `${x(0)},${y(0)} ${points.join(" ")} ${x(amounts.length - 1)},${y(0)}` }),
    svg("polyline", { points: points.join(" ") }),
    svg("circle", { cx: x(amounts.length - 1), cy: y(amounts.at(-1)), r: 2 }),
  );
}
