// Dead letters by what is wrong with them: shown, redriven, edited, discarded, and what came of it.

import { call, get } from "./api.js";
import { moment } from "./days.js";
import { $, h, once, Rows, write } from "./dom.js";
import { ask, field, openForm } from "./form.js";
import { count } from "./money.js";

const MOST = 20; // shown of one reason; what is done with all of them is done with the others too

/** The reason, as it was before the letter was redriven in vain. */
const cause = (letter) => letter.reason.replace(/^redriven: \w+: /, "");

const letters = (number) => (number === 1 ? "1 dead letter" : `${count(number)} dead letters`);

let onDone = () => {};
let isBusy = false;

/** Have `then` called when something was done. */
export function afterDecision(then) {
  onDone = then;
}

const reasons = new Rows($("letters"), (reason) => {
  const title = h("h3");
  const about = h("p", { class: "soft" });
  const rest = h("p", { class: "soft" });
  const list = h("ul", { class: "plain" });
  const rows = new Rows(list, letterRow);
  let shown = reason;
  const buttons = actions(() => shown.letters);
  return {
    node: h("li", { class: "reason" }, h("div", { class: "card-head" }, h("div", {}, title, about), buttons), list, rest),
    update(reason) {
      shown = reason;
      write(title, reason.id);
      const kinds = [...new Set(reason.letters.map((letter) => letter.type))];
      write(about, `${letters(reason.letters.length)}, ${kinds.slice(0, 3).join(", ")}${kinds.length > 3 ? " and others" : ""}`);
      rows.show(reason.letters.slice(0, MOST));
      const more = reason.letters.length - MOST;
      write(rest, more > 0 ? `${count(more)} more are like these.` : "");
      buttons.hidden = reason.letters.length < 2;
    },
  };
});

function letterRow(letter) {
  const { EventTypeName: type, Payload: payload, ...fields } = letter.fields;
  const pairs = {
    "Dead since": moment(letter.failed_at),
    Group: letter.group,
    Entry: letter.entry,
    Tried: letter.deliveries === 1 ? "once" : `${count(letter.deliveries)} times`,
    ...fields,
  };
  const node = h(
    "li",
    {},
    h(
      "details",
      {},
      h("summary", {}, h("span", { class: "strong" }, letter.type), h("span", { class: "soft" }, ` ${letter.group} · ${moment(letter.failed_at)}`)),
      h("pre", { tabindex: "0", "aria-label": "Payload" }, payload ?? ""),
      h("dl", { class: "pairs" }, ...Object.entries(pairs).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      actions(() => [letter], letter),
    ),
  );
  return { node, update() {} }; // a letter never changes
}

/** What can be done with letters, and with one that is `alone`: whatever else there is to be has its button here. */
function actions(chosen, alone) {
  const button = (name, act) =>
    h("button", { type: "button", class: "quiet", click: (event) => decide(event.currentTarget, act) }, name);
  return h(
    "div",
    { class: "form-end" },
    button(alone ? "Redrive" : "Redrive all", () => redrive(chosen())),
    ...(alone ? [button("Edit and redrive", (opener) => edit(opener, alone))] : []),
    h("button", { type: "button", class: "quiet danger", click: () => discard(chosen()) }, alone ? "Discard" : "Discard all"),
  );
}

/** Act, and tell what goes wrong; nothing else is begun meanwhile. */
async function decide(button, act) {
  if (isBusy) return;
  isBusy = true;
  await once(button, () => act(button), (error) => tell([error.message]));
  isBusy = false;
}

async function redrive(chosen) {
  tell([`Redriving ${letters(chosen.length)}…`]);
  tell(said(await call("POST", "operations/redrive", { body: { ids: chosen.map((letter) => letter.id) } })));
  await done();
}

/** Open a form with all of the payload, and what is wrong with it. */
async function edit(opener, letter) {
  const { payload } = await get(`operations/dead-letters/${letter.id}`);
  const text = field("payload", "Payload", { tag: "textarea", spellcheck: "false", autocapitalize: "off" }, (text) => text);
  openForm(opener, `Edit ${letter.type} and redrive`, {
    submit: "Redrive",
    fields: [text],
    async send(values) {
      const outcome = await call("POST", "operations/edit", { body: { id: letter.id, ...values } });
      return () => {
        tell(said(outcome));
        done();
      };
    },
  });
  text.input.value = payload;
  text.blame(cause(letter));
}

/** What came of letters that were redriven. */
function said({ applied, failed, waiting, refused }) {
  const again = Object.values(failed);
  const sentences = [];
  if (applied.length) sentences.push(`${letters(applied.length)} applied: the totals have ${applied.length === 1 ? "it" : "them"} now.`);
  if (again.length) sentences.push(`${letters(again.length)} failed again: ${cause(again[0])}.`);
  if (waiting.length) sentences.push(`${letters(waiting.length)} not tried yet: no consumer of the group has come by. It will be as soon as one does.`);
  sentences.push(...Object.values(refused).map((why) => `${why}.`));
  return sentences.length ? sentences : ["Nothing is left to redrive: somebody else has decided."];
}

async function discard(chosen) {
  const many = letters(chosen.length);
  const text = `The totals never get what ${chosen.length === 1 ? "it tells" : "they tell"}. This can't be undone.`;
  const act = () => call("POST", "operations/discard", { body: { ids: chosen.map((letter) => letter.id) } });
  if (!(await ask(`Discard ${many}?`, text, "Discard", act))) return;
  tell([`${many} discarded.`]);
  await done();
}

/** The button that was pressed is gone with its letter: go on at the head of the list. */
async function done() {
  await onDone();
  if (document.activeElement === document.body) $("letters-title").focus();
}

function tell(sentences) {
  write($("outcome"), sentences.join(" "));
}

/** Of all dead letters the oldest; `total` is null where nobody can tell. */
export function showLetters({ letters: found, total }) {
  if (total === null) return;
  const by = Map.groupBy(found, cause);
  reasons.show([...by].map(([id, letters]) => ({ id, letters })));
  const more = total - found.length;
  $("more-letters").hidden = more <= 0;
  write($("more-letters"), `${letters(more)} more, shown when these are decided.`);
  $("letters-card").hidden = !total && !$("outcome").textContent;
}
