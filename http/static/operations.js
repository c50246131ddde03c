// The operations page: what comes in and is applied, what waits, what can't be applied, who is at work. Both
// services are asked, as far as they answer.

import { get, session } from "./api.js";
import { Chart } from "./minute-chart.js";
import { lasting, moment } from "./days.js";
import { $, announce, h, meta, Rows, write, writeFigure } from "./dom.js";
import { afterDecision, showLetters } from "./letters.js";
import { count } from "./money.js";
import { State } from "./state.js";
import { watch } from "./watch.js";

const OWN = meta("service");
const SERVICES = ["customers", "accounts"];

const state = new State($("state"), "Tally");
const charts = [["recorded", "Recorded"], ["applied", "Applied"]].map(([of, what]) => new Chart($(of), what, of, SERVICES));

const sum = (numbers) => numbers.reduce((sum, each) => sum + each, 0);
const unknown = (value, shown = count) => (value == null ? "unknown" : shown(value));

/** Bytes, as people say it. */
function bytes(number) {
  const unit = [["GB", 1e9], ["MB", 1e6]].find(([, size]) => number >= size) ?? ["kB", 1e3];
  return `${new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 }).format(number / unit[1])} ${unit[0]}`;
}

// --- tables ----------------------------------------------------------------------------------

const [actors, groups, nodes] = [["actors", actorRow], ["groups", groupRow], ["nodes", nodeRow]].map(
  ([id, make]) => new Rows($(id).tBodies[0], make),
);

function actorRow() {
  const [state, up, restarts] = [h("td"), h("td", { class: "number" }), h("td", { class: "number" })];
  const name = h("th", { scope: "row" });
  return {
    node: h("tr", {}, name, state, up, restarts),
    update(actor) {
      write(name, actor.name);
      write(state, actor.trouble ? `${actor.state}: ${actor.trouble}` : actor.state);
      state.classList.toggle("wrong", actor.state !== "running" || Boolean(actor.trouble));
      write(up, actor.uptime_seconds == null ? "–" : lasting(actor.uptime_seconds));
      write(restarts, count(actor.restarts));
    },
  };
}

function groupRow() {
  const [name, about] = [h("span"), h("span", { class: "about" })];
  const [read, pending, unread] = [h("td", { class: "wide" }), h("td", { class: "number" }), h("td", { class: "number" })];
  return {
    node: h("tr", {}, h("th", { scope: "row" }, name, about), read, pending, unread),
    update(group) {
      write(name, group.name);
      write(about, aboutGroup(group));
      about.classList.toggle("wrong", group.holds_back || group.overtaken > 0);
      write(read, group.read_up_to ? moment(group.read_up_to) : "nothing");
      write(pending, count(group.pending));
      write(unread, group.unread >= group.most ? `${count(group.most)} or more` : count(group.unread));
    },
  };
}

/** Whose it is, whether somebody reads, and what is kept for it. */
function aboutGroup(group) {
  const told = [group.of_tally ? "of Tally" : "of another program"];
  if (group.idle_seconds == null) told.push("nobody has read from it");
  else if (group.idle_seconds >= 60) told.push(`nobody has read from it for ${lasting(group.idle_seconds)}`);
  if (group.holds_back) told.push("the stream keeps entries beyond the retention for it");
  if (group.overtaken) told.push(`${count(group.overtaken)} entries were removed before it had read them`);
  return told.join("; ");
}

function nodeRow() {
  const [number, addresses, missing, read] = [h("th", { scope: "row" }), h("td"), h("td", { class: "number" }), h("td")];
  return {
    node: h("tr", {}, number, addresses, missing, read),
    update(node) {
      write(number, `${node.number}${node.standby ? ", standby" : ""}${node.here ? " (here)" : ""}`);
      write(addresses, [node.url_customers, node.url_accounts].filter(Boolean).join(" ") || "not told");
      write(missing, unknown(node.lag));
      const idle = node.idle_seconds;
      write(read, idle == null ? "never" : idle < 60 ? "now" : `${lasting(idle)} ago`);
    },
  };
}

// --- looking ---------------------------------------------------------------------------------

/** What a service answers; null where it does not answer, unless that is the page's own. */
async function answers(path, service) {
  if (service === OWN) return get(path);
  return get(path, service).catch(() => null);
}

async function look() {
  const { admin } = await session();
  $("for-admins").hidden = admin;
  $("operations").hidden = !admin;
  if (!admin) return;
  const asked = performance.now();
  const [stream, letters, ...told] = await Promise.all([
    get("operations/stream"),
    get("operations/dead-letters"),
    ...SERVICES.map((service) => answers("status", service)),
    ...SERVICES.map((service) => answers("operations/minutes", service)),
  ]);
  const reports = told.slice(0, SERVICES.length);
  showState(reports, asked);
  charts.forEach((chart) => chart.show(Object.fromEntries(SERVICES.map((service, i) => [service, told[SERVICES.length + i]?.minutes ?? null]))));
  showFigures(reports.filter(Boolean), stream, letters.total);
  showLetters(letters);
  showTables(reports.filter(Boolean), stream);
}

/** Both services as one: what either says counts once. */
function showState(reports, asked) {
  const there = reports.filter(Boolean);
  const silent = SERVICES.filter((service, i) => !reports[i]).map((service) => `The ${service} service does not answer here.`);
  const all = (name) => [...new Set(there.flatMap((report) => report[name] ?? []))];
  const reasons = [...silent, ...all("reasons")];
  const isAway = there.some((report) => report.redis.reachable === false);
  const status = reasons.length ? "degraded" : "ok";
  state.show({ status, reasons, notes: all("notes"), redis: { reachable: !isAway } }, asked);
}

function showFigures(reports, stream, dead) {
  const known = (numbers) => (numbers.some((each) => each == null) ? null : sum(numbers));
  const lags = reports.map((report) => report.redis.lag);
  writeFigure($("outbox"), unknown(known(reports.map((report) => report.outbox_depth))));
  writeFigure($("lag"), unknown(known(lags.map((lag) => lag && sum(Object.values(lag))))));
  writeFigure($("dead"), unknown(dead));
  $("dead").classList.toggle("wrong", dead > 0);
  write($("memory"), unknown(stream.memory.used, bytes));
  const missing = reports.flatMap((report) => Object.entries(report.redis.lag ?? {}).filter(([, number]) => number)
    .map(([source, number]) => `${count(number)} of ${source} in the ${report.service} service`));
  write($("missing"), `Not applied yet: ${missing.join(", ")}.`);
  $("missing").hidden = !missing.length;
}

function showTables(reports, stream) {
  const every = [...reports.flatMap((report) => report.actors), ...stream.actors];
  actors.show(every.map((actor) => ({ id: actor.name, ...actor })));
  $("actors").hidden = !every.length;
  $("no-actors").hidden = Boolean(every.length);
  const { memory } = stream;
  write($("used"), unknown(memory.used, bytes));
  write($("limit"), memory.limit_is_known && !memory.limit ? "none" : unknown(memory.limit, bytes));
  write($("stream"), unknown(memory.stream, (number) => `about ${bytes(number)}`));
  write($("entries"), unknown(stream.entries));
  write($("oldest"), stream.entries === 0 ? "–" : unknown(stream.oldest, moment));
  groups.show(stream.groups.map((group) => ({ id: group.name, most: stream.most_unread, ...group })));
  $("groups").hidden = !stream.groups.length;
  $("no-groups").hidden = Boolean(stream.groups.length) || stream.entries === null;
  const known = reports.findLast((report) => report.nodes?.length)?.nodes ?? [];
  $("nodes-card").hidden = known.length < 2;
  nodes.show(known.map((node) => ({ id: `${node.number} ${node.customers} ${node.accounts}`, ...node })));
}

function complain(error) {
  const text = error ? `${error.message} Trying again…` : "";
  $("notice").hidden = !text;
  if (error) state.show(null);
  if (write($("notice"), text)) announce(text || "The page is up to date again.");
}

afterDecision(watch(2, look, () => complain(null), complain));
