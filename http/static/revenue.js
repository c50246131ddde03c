// Revenue over time, as a part of a page: a headline, how it has changed, a period to choose, a chart.

import { RevenueChart } from "./chart.js";
import { $, fill, h, write, writeFigure } from "./dom.js";
import { growth, headline, money, signed } from "./money.js";
import { nameOfSpan, parseMonth, PERIODS, Revenue, spanOf, writeMonth } from "./periods.js";

const OWN = "own"; // months of one's own

const written = ({ first, last }) => `${writeMonth(first)}..${writeMonth(last)}`;

/** The part of the page that shows it; `choose(period)` hears which period is wanted. There is one on a page. */
export class RevenuePart {
  #choose;
  #chart = new RevenueChart($("chart"));
  #revenue = null;
  #period = "";
  #written = null; // the span that the fields of its months were given
  #months = ["First month", "Last month"].map((label) => h("input", {
    type: "month", "aria-label": label, placeholder: "2026-01", required: true, autocomplete: "off", change: () => this.#chooseOwn(),
  }));

  constructor(choose) {
    this.#choose = choose;
    for (const [value, name] of [...PERIODS, [OWN, "From – to"]]) {
      const change = () => choose(value === OWN ? written(this.span) : value);
      $("periods").append(h("label", {}, h("input", { type: "radio", name: "period", value, change, autocomplete: "off" }), name));
    }
    const [first, last] = this.#months;
    $("span").append(first, "to", last, h("p", { id: "span-error", class: "error", role: "alert" }));
    $("span").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#chooseOwn();
    });
  }

  /** The months that are shown. */
  get span() {
    return spanOf(this.#period, this.#revenue ?? new Revenue([]));
  }

  /** Show what came in when; null as long as that isn't known. */
  set revenue(revenue) {
    this.#revenue = revenue;
    this.#show();
  }

  set period(period) {
    this.#period = period;
    this.#show();
  }

  #chooseOwn() {
    const [first, last] = this.#months.map((input) => parseMonth(input.value.trim()));
    const isSpan = first !== null && last !== null && first <= last;
    write($("span-error"), isSpan ? "" : "Enter two months, the earlier one first, like 2026-01.");
    if (isSpan) this.#choose(written({ first, last }));
  }

  #show() {
    this.#showPeriod();
    const revenue = this.#revenue;
    if (!revenue) return ["headline", "change"].forEach((id) => write($(id), ""));
    const { span } = this;
    const cents = revenue.sum(span);
    write($("revenue-title"), `Revenue, ${span.name}`);
    writeFigure($("headline"), headline(cents));
    this.#showChange(cents, span.before);
    this.#chart.show(revenue.bars(span), `Revenue, ${nameOfSpan(span)}`);
    $("rest").hidden = !revenue.rest;
    write($("rest"), `${money(revenue.rest)} more has no known month, and shows in the total only.`);
  }

  /** Against the months before, where it is known what came in in all of them. */
  #showChange(cents, before) {
    const { first } = this.#revenue;
    if (!before || first === null || before.first < first) return $("change").replaceChildren();
    const was = this.#revenue.sum(before);
    const difference = cents - was;
    const part = growth(cents, was);
    const text = part ? `${part} (${signed(difference)})` : signed(difference);
    const against = ` against ${nameOfSpan(before)}: ${money(was)}`;
    const kind = difference > 0n ? "more-than" : "less-than";
    if (write($("change"), text + against)) $("change").replaceChildren(h("span", { class: kind }, text), against);
  }

  #showPeriod() {
    const { span } = this;
    const isOwn = !PERIODS.some(([value]) => value === span.period);
    for (const input of $("periods").querySelectorAll("input")) input.checked = input.value === (isOwn ? OWN : span.period);
    $("span").hidden = !isOwn;
    const told = isOwn ? written(span) : null;
    if (told === this.#written) return; // somebody may be writing in them
    this.#written = told;
    if (!isOwn) return;
    [span.first, span.last].forEach((month, i) => fill(this.#months[i], writeMonth(month)));
    write($("span-error"), "");
  }
}
