// How Tally is, in a line: all is well, or why not.

import { announce, h, write } from "./dom.js";

const STALE_SECONDS = 3; // pages look every other second: an answer that is older is told to be so

/** The line, the reasons and the notes, in `section`; `name` is whose state it is, for those who listen. */
export class State {
  #section;
  #name;
  #mood = h("strong");
  #age = h("span", { class: "soft" });
  #reasons = h("ul", { class: "reasons" });
  #notes = h("ul", { class: "notes" });
  #asked = null;

  constructor(section, name) {
    this.#section = section;
    this.#name = name;
    const dot = h("span", { class: "dot", "aria-hidden": "true" });
    section.append(h("p", { class: "mood" }, dot, this.#mood, this.#age), this.#reasons, this.#notes);
    setInterval(() => {
      if (this.#asked !== null && this.#seconds() > STALE_SECONDS) write(this.#age, `· ${Math.round(this.#seconds())} s ago`);
    }, 1000);
  }

  /** What a service said that was asked at that time (of performance.now()); null when none answers. */
  show(report, asked = null) {
    this.#asked = report && asked;
    write(this.#age, this.#asked === null ? "" : `· ${this.#seconds().toFixed(1)} s ago`);
    const { reasons = [], notes = [] } = report ?? {};
    const isAway = report?.redis.reachable === false;
    const calming = isAway ? ["What is recorded is safe, and shows in the totals when Redis is back."] : [];
    list(this.#reasons, [...calming, ...reasons]);
    list(this.#notes, notes);
    const before = this.#section.dataset.status;
    this.#section.dataset.status = report?.status ?? "no answer";
    const changed = write(this.#mood, moodOf(report, isAway));
    if (before && changed) announce(`${this.#name}: ${this.#mood.textContent}`);
  }

  #seconds() {
    return (performance.now() - this.#asked) / 1000;
  }
}

/** Written anew only where it is another, so that what somebody marks with the mouse stays marked. */
function list(node, texts) {
  const shown = JSON.stringify(texts);
  if (node.dataset.shown === shown) return;
  node.dataset.shown = shown;
  node.replaceChildren(...texts.map((text) => h("li", {}, text)));
}

function moodOf(report, isAway) {
  if (!report) return "No answer";
  if (isAway) return "Degraded: totals may be behind";
  return report.status === "ok" ? "All is well" : "Degraded";
}
