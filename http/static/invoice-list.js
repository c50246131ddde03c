// The invoices of all customers: of a time, of an account, with a reference.

import { accountName, learn } from "./account-names.js";
import { accountFilter } from "./account-field.js";
import { get, withChange } from "./api.js";
import { day } from "./days.js";
import { $, entitle, fill, h, meta, Pager, Rows, settled, write } from "./dom.js";
import { money } from "./money.js";
import { addressOf, change, turnBack, turnOn } from "./place.js";

const PAGE = 50;

let asked = {};
let next = null;

const rows = new Rows($("all-invoices").tBodies[0], (invoice) => {
  const customer = h("a", { href: addressOf({ customer: invoice.customer_id }) });
  const account = withChange(h("a"));
  const [date, reference] = [h("td", { class: "date" }), h("td", { class: "wide" })];
  const [under, amount] = [h("span", { class: "under" }), h("td", { class: "number strong" })];
  return {
    node: h(
      "tr", {},
      h("td", { class: "number soft wide" }, invoice.id), date,
      h("th", { scope: "row" }, customer, under), h("td", { class: "wide" }, account),
      reference, amount,
    ),
    update(invoice) {
      write(customer, invoice.customer);
      write(account, accountName(invoice.account_id));
      account.href = `${meta("accounts")}#account=${invoice.account_id}`;
      withChange(account);
      write(date, day(invoice.purchase_date));
      write(reference, invoice.reference ?? "");
      write(under, [accountName(invoice.account_id), invoice.reference].filter(Boolean).join(" · "));
      write(amount, money(invoice.purchase_price_cents));
    },
  };
});

const pager = new Pager($("invoice-pager"), ["Previous", "Next"], () => asked.at && turnBack(), () => next && turnOn(next));

for (const name of ["from", "to"]) {
  $(name).addEventListener("change", () => change({ [name]: $(name).value }));
}
$("reference").addEventListener("input", settled(() => change({ reference: $("reference").value.trim() }, { again: true })));
$("invoice-sort").addEventListener("change", () => change({ order: $("invoice-sort").value }));
const showAccount = accountFilter($("invoice-account"), (account) => change({ account }));

/** What GET /invoices is asked for. */
function filters({ from, to, reference, account, order }) {
  const told = { from, to, reference, account_id: account, order: order || "-id" };
  return Object.fromEntries(Object.entries(told).filter(([, value]) => value));
}

async function showNames(invoices, now) {
  if (!(await learn([...invoices.map((each) => each.account_id), ...(now.account ? [now.account] : [])])) || now !== asked) return;
  rows.show(invoices);
  showAccount(now.account);
}

export const invoices = {
  sections: ["invoices-view"],

  enter({ from = "", to = "", reference = "", account = "", order = "", at = "" }) {
    if (![...$("invoice-sort").options].some((each) => each.value === order)) order = "";
    asked = { from, to, reference, account, order, at };
    const shown = { from, to, reference, "invoice-sort": order };
    next = null;
    entitle("Invoices");
    for (const [id, value] of Object.entries(shown)) fill($(id), value);
    showAccount(account);
    $("export-invoices").href = `invoices?${new URLSearchParams({ format: "csv", ...filters(asked) })}`;
    $("invoices-view").hidden = false;
  },

  async look() {
    const now = asked;
    const query = new URLSearchParams({ limit: PAGE, ...filters(now), ...(now.at && { after: now.at }) });
    const answer = await get(`invoices/search?${query}`);
    if (now !== asked) return;
    next = answer.next;
    rows.show(answer.invoices);
    $("all-invoices").hidden = !answer.invoices.length;
    $("no-invoices").hidden = Boolean(answer.invoices.length);
    const isFiltered = now.from || now.to || now.reference || now.account;
    write($("no-invoices"), isFiltered ? "No invoice matches." : "There is no invoice yet.");
    pager.show("", Boolean(now.at), Boolean(next));
    showNames(answer.invoices, now);
  },

  arrive() {
    $("invoices-title").focus();
  },
};
