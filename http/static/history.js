// What became of an account, a customer or an invoice: who recorded and changed it, when, and what it was before.

import { get } from "./api.js";
import { learn } from "./account-names.js";
import { differing } from "./change.js";
import { moment } from "./days.js";
import { h, once, openDialog, write } from "./dom.js";
import { money } from "./money.js";

const PAGE = 100;

const WORDS = { AccountCreated: "Opened", Created: "Recorded", Updated: "Changed", Deleted: "Deleted" };
const CREDITS = { CreditCreated: ["Credited", "after"], CreditDeleted: ["Credit taken back:", "before"] };

function what({ event, before, after }) {
  const credit = CREDITS[event];
  if (credit) return `${credit[0]} ${money({ before, after }[credit[1]].credited_cents)}`;
  return WORDS[event] ?? WORDS[/[A-Z][a-z]+$/.exec(event)];
}

function changes({ before, after }) {
  if (!before || !after) return [];
  return differing(before, after)
    .map(([name, label, shown]) => h("p", {}, `${label}: ${shown(before[name])} → ${shown(after[name])}`));
}

const entry = (each) => h(
  "li",
  {},
  h("strong", {}, what(each)),
  h("span", { class: "soft" }, ` ${moment(each.at)}${each.by ? ` by ${each.by}` : ""}`),
  ...changes(each),
);

/** Show it beside the page; `path` is that of the call. */
export function showHistory(opener, title, path) {
  const list = h("ol", { class: "history" });
  const trouble = h("p", { class: "error", role: "alert" });
  const more = h("button", { type: "button", class: "quiet", hidden: true, click: () => once(more, read, complain) }, "More");
  const dialog = h(
    "dialog",
    { class: "question", "aria-labelledby": "history-title" },
    h("div", { class: "question-head" }, h("h2", { id: "history-title" }, title), h("button", { type: "button", class: "quiet", click: () => dialog.close() }, "Close")),
    list, more, trouble,
  );
  let after = "";

  async function read() {
    const answer = await get(`${path}?limit=${PAGE}${after && `&after=${after}`}`);
    await learn(answer.history.flatMap((each) => [each.before?.account_id, each.after?.account_id]).filter(Boolean));
    list.append(...answer.history.map(entry));
    after = answer.next ?? "";
    more.hidden = !after;
    write(trouble, "");
  }
  const complain = (error) => write(trouble, error.message);

  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  openDialog(dialog, opener);
  once(more, read, complain);
}
