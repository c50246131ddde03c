// A small chart of what two services did in each minute of the last hour, a line for each.

import { h, svg, write } from "./dom.js";
import { count } from "./money.js";

const MINUTES = 60;
const [WIDTH, HEIGHT] = [590, 120]; // of the drawing; it is stretched to where it stands
const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const clock = (at) => time.format(at * 1000);

export class Chart {
  #what;
  #of;
  #svg;
  #lines = {}; // of each service: through the minutes that are over, and the one that goes on
  #values = {};
  #most = h("span");
  #since = h("span");
  #moment = h("span");
  #minutes = {};
  #last = 0;

  /** In `figure`, of the key `of` in the minutes of each service; `what` is said of it to those who listen. */
  constructor(figure, what, of, services) {
    this.#what = what;
    this.#of = of;
    this.#svg = svg("svg", { viewBox: `0 -6 ${WIDTH} ${HEIGHT + 12}`, preserveAspectRatio: "none", role: "img" });
    this.#svg.append(svg("path", { class: "ground", d: `M0 ${HEIGHT}H${WIDTH}` }));
    const legend = h("figcaption", { class: "legend" });
    for (const service of services) {
      this.#lines[service] = ["line", "dot-now"].map((kind) => svg("path", { class: `${kind} ${service}` }));
      this.#values[service] = h("span", { class: "value" }, "–");
      this.#svg.append(...this.#lines[service]);
      legend.append(h("span", {}, h("span", { class: `swatch ${service}`, "aria-hidden": "true" }), service, " ", this.#values[service]));
    }
    const [above, below] = [[this.#most, this.#moment], [this.#since, h("span", {}, "now")]].map((ends) => h("p", { class: "soft axis" }, ...ends));
    figure.append(legend, above, this.#svg, below);
    this.#svg.addEventListener("pointermove", (event) => this.#point(event.offsetX / this.#svg.clientWidth));
    this.#svg.addEventListener("pointerleave", () => write(this.#moment, ""));
  }

  /** The minutes of a service as it tells them; null where it does not answer. */
  show(every) {
    this.#minutes = every;
    this.#last = Math.max(0, ...Object.values(every).flatMap((minutes) => minutes?.at(-1)?.at ?? 0));
    const known = Object.values(every).flatMap((minutes) => (minutes ?? []).filter((each) => each[this.#of] !== null));
    const most = Math.max(0, ...known.map((each) => each[this.#of]));
    const top = rounded(most);
    for (const [service, [line, dot]] of Object.entries(this.#lines)) {
      const minutes = every[service] ?? [];
      line.setAttribute("d", this.#path(minutes.slice(0, -1), top));
      dot.setAttribute("d", this.#path(minutes.slice(-1), top));
      write(this.#values[service], every[service] ? count(this.#sum(service)) : "unknown");
    }
    write(this.#most, `${count(top)} a minute`);
    const first = Math.min(...known.map((each) => each.at));
    write(this.#since, known.length && first > this.#first() ? `known since ${clock(first)}` : clock(this.#first()));
    const told = Object.keys(this.#lines).map((service) => `${service} ${this.#values[service].textContent}`);
    this.#svg.setAttribute("aria-label", `${this.#what} in the last hour: ${told.join(", ")}; at most ${count(most)} in a minute`);
  }

  #first() {
    return this.#last - (MINUTES - 1) * 60;
  }

  #sum(service) {
    return this.#minutes[service].reduce((sum, each) => sum + (each[this.#of] ?? 0), 0);
  }

  /** A line through the minutes, with gaps where nobody has looked. */
  #path(minutes, top) {
    let path = "";
    let step = "M";
    for (const each of minutes) {
      const value = each[this.#of];
      const [x, y] = [(each.at - this.#first()) / 60 / (MINUTES - 1), 1 - value / top];
      if (value !== null) path += `${step}${x * WIDTH} ${y * HEIGHT}${step === "M" ? "h0" : ""}`;
      step = value === null ? "M" : "L";
    }
    return path;
  }

  /** Tell the minute at that part of the width. */
  #point(part) {
    const at = this.#first() + Math.round(part * (MINUTES - 1)) * 60;
    const told = Object.entries(this.#minutes).map(([service, minutes]) => {
      const value = minutes?.find((each) => each.at === at)?.[this.#of];
      return `${service} ${value == null ? "unknown" : count(value)}`;
    });
    write(this.#moment, `${clock(at)}: ${told.join(", ")}`);
  }
}

/** The next of 1, 2, 5, 10, 20, 50, … */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}
