// The strip that tells the state of the service: Redis, lag, outbox, dead letters, actors.

import { get } from "./api.js";
import { $, announce, h, meta, Rows, write } from "./dom.js";
import { count } from "./money.js";
import { watch } from "./watch.js";

const NOTHING = { status: "no answer", reasons: [], redis: { reachable: null }, actors: [] };

const facts = {};
const mood = h("strong");
const notice = h("p", { class: "notice", hidden: true });
const reasons = h("ul", { class: "reasons" });
const notes = h("ul", { class: "notes" });
const actors = h("tbody");
const rows = new Rows(actors, actorRow);
const nodeBody = h("tbody");
const nodeRows = new Rows(nodeBody, nodeRow);
const nodeTable = table("Nodes", ["Node", "Address", "Missing here", "Has read"], nodeBody);

function table(caption, names, body) {
  return h(
    "table",
    {},
    h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, ...names.map((name, i) =>
      h("th", { scope: "col", class: i === 2 ? "number" : null }, name)))),
    body,
  );
}

function fact(name, label) {
  facts[name] = h("span", { class: "value" }, "–");
  return h("span", { class: "fact" }, h("span", { class: "label" }, label), " ", facts[name]);
}

$("strip").append(
  h(
    "details",
    {},
    h(
      "summary",
      {},
      h("span", { class: "fact mood" }, h("span", { class: "dot", "aria-hidden": "true" }), mood),
      fact("redis", "Redis"),
      fact("lag", "Lag"),
      fact("outbox", "Outbox"),
      fact("dead", "Dead letters"),
      fact("actors", "Actors"),
    ),
    h(
      "div",
      { class: "strip-more" },
      reasons,
      table("Actors", ["Actor", "State", "Restarts"], actors),
      nodeTable,
    ),
  ),
  notes,
  notice,
);

function actorRow() {
  const [name, state, restarts] = [h("th", { scope: "row" }), h("td"), h("td", { class: "number" })];
  return {
    node: h("tr", {}, name, state, restarts),
    update(actor) {
      write(name, actor.name);
      write(state, actor.trouble ? `${actor.state}: ${actor.trouble}` : actor.state);
      write(restarts, count(actor.restarts));
    },
  };
}

function nodeRow() {
  const [number, address, missing, read] =
    [h("th", { scope: "row" }), h("td"), h("td", { class: "number" }), h("td")];
  return {
    node: h("tr", {}, number, address, missing, read),
    update(node) {
      write(number, `${node.number}${node.standby ? ", standby" : ""}${node.here ? " (here)" : ""}`);
      write(address, node[`url_${meta("service")}`] || "not told");
      write(missing, node.lag == null ? "unknown" : count(node.lag));
      const seconds = node.idle_seconds;
      write(read, seconds == null ? "never" : seconds < 60 ? "now" : `${count(Math.round(seconds / 60))} min ago`);
    },
  };
}

function moodOf({ status, redis }) {
  if (redis.reachable === false) return "Degraded: totals may be behind";
  return { ok: "All is well", degraded: "Degraded" }[status] ?? "No answer";
}

function show(report) {
  const { redis } = report;
  const lag = redis.lag && Object.values(redis.lag).reduce((sum, each) => sum + each, 0);
  const running = report.actors.filter((actor) => actor.state === "running").length;
  const unknown = (value) => (value == null ? "unknown" : count(value));
  const mark = (name, text, wrong) => {
    write(facts[name], text);
    facts[name].classList.toggle("wrong", Boolean(wrong));
  };
  mark("redis", redis.reachable === null ? "unknown" : redis.reachable ? "reachable" : "unreachable", redis.reachable === false);
  mark("lag", unknown(lag));
  mark("outbox", unknown(report.outbox_depth));
  mark("dead", unknown(redis.dead_letters), redis.dead_letters);
  mark("actors", report.actors.length ? `${running} of ${report.actors.length}` : "unknown", running < report.actors.length);
  rows.show(report.actors.map((actor) => ({ id: actor.name, ...actor })));
  const nodes = report.nodes ?? [];
  nodeTable.hidden = nodes.length < 2;
  nodeRows.show(nodes.map((node) => ({ id: `${node.number} ${node.customers} ${node.accounts}`, ...node })));
  const calming = redis.reachable === false ? ["What is recorded is safe, and shows in the totals when Redis is back."] : [];
  reasons.replaceChildren(...[...calming, ...report.reasons].map((reason) => h("li", {}, reason)));
  notes.replaceChildren(...(report.notes ?? []).map((note) => h("li", {}, note)));
  const before = $("strip").dataset.status;
  $("strip").dataset.status = report.status;
  const changed = write(mood, moodOf(report));
  if (before && changed) announce(`${meta("service")} service: ${mood.textContent}`);
}

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
let answered = null; // when the page was last up to date

/** Tell at the top of the page why it does not move, and of when it is; null when it does again. */
export function complain(error) {
  if (!error) answered = new Date();
  $("main").classList.toggle("stale", Boolean(error));
  const since = answered ? ` What is shown is of ${time.format(answered)}.` : "";
  const text = error ? `${error.message} Trying again…${since}` : "";
  notice.hidden = !text;
  if (write(notice, text)) announce(text || "The page is up to date again.");
}

watch(2, async () => show(await get("status")), () => {}, () => show(NOTHING));
