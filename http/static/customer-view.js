// One customer: what it spent and when, invoices and credits, and what can be done with them.

import { accountName, learn } from "./account-names.js";
import { call, get, Problem, remove, withChange } from "./api.js";
import { amountField, changeCustomer, changeInvoice, dateField, newCredit, recorded, referenceField } from "./customer-forms.js";
import { day, dayOf, today } from "./days.js";
import { $, announce, entitle, h, meta, Pager, Rows, write, writeFigure } from "./dom.js";
import { ask, Form } from "./form.js";
import { showHistory } from "./history.js";
import { menu } from "./menu.js";
import { count, headline, money } from "./money.js";
import { parseMonth, shortMonth } from "./periods.js";
import { go, place, turnBack, turnOn } from "./place.js";
import { hold, isHeld, tellUndone } from "./undo.js";

const PAGE = 25;
const MONTHS = 24;

let chosen = { id: null, offset: 0, answer: null };

// --- invoices and credits --------------------------------------------------------------------

const pathOf = ({ kind, id }) => `${kind}s/${id}`;

function actions(entry) {
  const doomed = ["Delete", () => deleteEntry(entry)];
  if (entry.kind === "credit") return [doomed];
  return [
    ["Change", (opener) => changeInvoice(opener, entry)],
    ["Credit", (opener) => newCredit(opener, chosen.id, entry)],
    ["History", (opener) => showHistory(opener, `History of invoice ${entry.id}`, `invoices/${entry.id}/history`)],
    doomed,
  ];
}

const rows = new Rows($("entries").tBodies[0], (made) => {
  let entry = made;
  const [date, under] = [h("td", { class: "date wide" }), h("span", { class: "under" })]; // which is on a phone
  const [what, reference] = [h("span"), h("span", { class: "soft" })];
  const [amount, credited] = [h("span"), h("span", { class: "below" })];
  const isCredit = entry.kind === "credit";
  write(what, isCredit ? `Credit${entry.invoice_id ? ` for invoice ${entry.invoice_id}` : ""}` : `Invoice ${entry.entry_id}`);
  return {
    node: h(
      "tr", { class: isCredit ? "credit" : null },
      date,
      h("th", { scope: "row" }, what, " ", reference, under),
      h("td", { class: "number strong" }, amount, credited),
      h("td", { class: "act" }, menu(`Actions for ${entry.kind} ${entry.entry_id}`, () => actions({ ...entry, id: entry.entry_id }))),
    ),
    update(now) {
      entry = now;
      for (const each of [date, under]) write(each, day(now.date));
      write(reference, now.reference ?? "");
      write(amount, money(isCredit ? -BigInt(now.cents) : now.cents));
      write(credited, now.credited_cents === "0" ? "" : `${money(now.credited_cents)} credited`);
    },
  };
});

const pager = new Pager($("entry-pager"), ["Newer", "Older"], () => chosen.offset && turnBack(), () => {
  const { totals } = chosen.answer;
  if (chosen.offset + PAGE < totals.invoices + totals.credits) turnOn(String(chosen.offset + PAGE));
});

function showEntries({ entries, totals }) {
  const shown = entries.filter((each) => !isHeld(pathOf(each)));
  rows.show(shown.map((each) => ({ ...each, entry_id: each.id, id: pathOf(each) })));
  $("entries").hidden = !shown.length;
  $("no-entries").hidden = Boolean(shown.length);
  $("export-entries").hidden = !totals.invoices;
  const [all, to] = [totals.invoices + totals.credits, chosen.offset + entries.length];
  const range = `${count(chosen.offset + 1)} to ${count(to)} of ${count(all)}`;
  pager.show(entries.length && all > PAGE ? range : "", chosen.offset > 0, to < all);
}

// --- figures ---------------------------------------------------------------------------------

const bars = new Rows($("months"), () => {
  const [bar, text] = [h("span", { class: "month-bar", "aria-hidden": "true" }), h("span", { class: "visually-hidden" })];
  const node = h("li", {}, bar, text);
  return {
    node,
    update({ id, cents, share }) {
      const said = `${shortMonth(id)}: ${money(cents)}`;
      write(text, said);
      node.title = said;
      node.classList.toggle("less", cents < 0n);
      bar.style.height = `${share}%`;
    },
  };
});

function showMonths(known) {
  $("by-month").hidden = !known.length;
  if (!known.length) return;
  const cents = new Map(known.map((each) => [parseMonth(each.month), BigInt(each.cents)]));
  const months = [...cents.keys()];
  const first = Math.max(months[0], months.at(-1) - MONTHS + 1);
  const shown = Array.from({ length: months.at(-1) - first + 1 }, (_, i) => ({ id: first + i, cents: cents.get(first + i) ?? 0n }));
  const size = ({ cents }) => (cents < 0n ? -cents : cents);
  const most = shown.map(size).reduce((a, b) => (a > b ? a : b), 1n);
  bars.show(shown.map((each) => ({ ...each, share: Number((size(each) * 1000n) / most) / 10 })));
  write($("months-from"), shortMonth(first));
  write($("months-to"), shown.length > 1 ? shortMonth(months.at(-1)) : "");
}

function showFigures({ totals }) {
  writeFigure($("customer-revenue"), headline(totals.total_revenue_cents));
  writeFigure($("customer-count"), count(totals.invoices));
  writeFigure($("customer-average"), totals.average_cents == null ? "–" : headline(totals.average_cents));
  write($("customer-first"), totals.first_purchase ? day(totals.first_purchase) : "–");
  write($("customer-last"), totals.last_purchase ? day(totals.last_purchase) : "–");
}

async function showAbout(customer) {
  write($("customer-name"), customer.name);
  const about = $("customer-about");
  const shown = () => {
    const told = `${customer.id} ${customer.account_id} ${accountName(customer.account_id)}`;
    if (about.dataset.told === told) return;
    about.dataset.told = told;
    about.replaceChildren(
      `Customer ${customer.id} of `,
      withChange(h("a", { href: `${meta("accounts")}#account=${customer.account_id}` }, accountName(customer.account_id))),
      `, since ${dayOf(customer.created_date)}`,
    );
  };
  shown();
  if (await learn([customer.account_id])) if (chosen.id === customer.id) shown();
}

function show(answer) {
  const { customer } = answer;
  chosen.answer = answer;
  entitle(customer.name);
  $("detail").hidden = false;
  $("gone").hidden = true;
  showAbout(customer);
  $("customer-notice").hidden = answer.account_is_open;
  write($("customer-notice"), `There is no account ${customer.account_id}: what this customer spends shows in no account.`);
  showFigures(answer);
  showMonths(answer.totals.months);
  showEntries(answer);
}

function showGone(text) {
  $("detail").hidden = true;
  $("gone").hidden = false;
  write($("gone-text"), text);
}

export const customer = {
  sections: ["detail", "gone"],

  enter({ customer: id, at }, same) {
    const offset = /^\d{1,9}$/.test(at) ? Number(at) : 0;
    chosen = { id, offset, answer: same ? chosen.answer : null };
    if (same) return;
    $("detail").hidden = $("gone").hidden = true;
    entitle(`Customer ${id}`);
    $("export-entries").href = `invoices?${new URLSearchParams({ format: "csv", customer_id: id })}`;
    $("invoice").replaceChildren(unsettled.get(id) ?? invoiceForm(id));
  },

  async look() {
    const now = chosen;
    try {
      const answer = await get(`customers/${now.id}/summary?${new URLSearchParams({ limit: PAGE, offset: now.offset })}`);
      if (now === chosen) show(answer);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) throw error;
      if (now === chosen) showGone(error.message);
    }
  },

  arrive() {
    const goal = $("detail").hidden ? $("gone-text") : $("customer-name");
    goal.focus({ preventScroll: true });
    scrollTo(0, 0);
  },
};

// --- what can be done ------------------------------------------------------------------------

const unsettled = new Map(); // forms whose invoice is on its way, or has got no answer, by the customer's id

/** A form for invoices of one customer: what becomes of one that is on its way never changes another's. */
function invoiceForm(id) {
  const node = h("form", { class: "upright", novalidate: true });
  const amount = amountField("purchase_price_cents");
  const form = new Form(node, {
    submit: "Record",
    fields: [dateField("purchase_date", "Date of purchase"), amount, referenceField()],
    async send(values, key) {
      const what = `Invoice of ${money(values.purchase_price_cents)}`;
      const { name } = chosen.answer.customer;
      unsettled.set(id, node);
      try {
        await call("POST", "invoices", { body: { customer_id: id, ...values }, key });
      } catch (error) {
        if (!node.isConnected) tellUndone(`Not recorded: ${what} of ${name}. ${error.message}`, () => $("main"));
        throw error;
      }
      unsettled.delete(id);
      announce(`${what} recorded`);
      form.reset({ purchase_date: values.purchase_date });
      if (node.isConnected) amount.input.focus();
      if (node.isConnected && chosen.offset) go({ ...place(), at: "" });
      else recorded(); // the next one can be sent meanwhile
    },
  });
  form.reset({ purchase_date: today() });
  return node;
}

$("new-credit").addEventListener("click", () => newCredit($("new-credit"), chosen.id));
$("change-customer").addEventListener("click", () => changeCustomer($("change-customer"), chosen.answer.customer));
$("customer-ways").append(menu("More for the customer", () => [
  ["History", (opener) => showHistory(opener, `History of ${chosen.answer.customer.name}`, `customers/${chosen.id}/history`)],
  ["Delete customer", deleteCustomer],
]));

function deleteEntry(entry) {
  const name = entry.kind === "credit" ? "Credit" : "Invoice";
  hold(pathOf(entry), `${name} of ${money(entry.cents)} deleted.`, {
    options: entry.kind === "invoice" && { revision: entry.revision },
    onChange: () => (chosen.answer && showEntries(chosen.answer), recorded()),
    goal: () => $("customer-name"),
  });
}

async function deleteCustomer() {
  const { customer, totals } = chosen.answer;
  const leave = () => go(Object.fromEntries(new URLSearchParams($("to-customers").hash.slice(1))));
  if (!totals.invoices && !totals.credits) {
    leave();
    hold(`customers/${customer.id}`, `${customer.name} deleted.`, {
      query: "?cascade=false",
      options: { revision: customer.revision },
      onChange: recorded,
      goal: () => $("list-title"),
    });
    return;
  }
  const number = totals.invoices === 1 ? "1 invoice goes" : `${count(totals.invoices)} invoices go`;
  const text = `${number} with the customer, ${money(totals.total_revenue_cents)} in all. This can't be undone.`;
  const act = () => remove(`customers/${customer.id}`);
  if (!(await ask(`Delete ${customer.name}?`, text, "Delete customer", act))) return;
  announce(`${customer.name} deleted`);
  leave();
}
