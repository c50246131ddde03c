// The customers page: find a customer, see the invoices, record, delete.

import { call, get, Problem, remove, required, withChange } from "./api.js";
import { $, announce, h, meta, Pager, Rows, settled, write, writeFigure } from "./dom.js";
import { ask, field, Form, openForm } from "./form.js";
import { count, money, parseMoney } from "./money.js";
import { complain } from "./strip.js";
import { watch } from "./watch.js";

const PAGE = 25;
const ID = /^(0|[1-9]\d{0,18})$/;

const asked = { search: "", befores: [""], next: null };
const chosen = { id: null, befores: [""], next: null, customer: null, totals: null };

/** Newer and older pages of a list that is asked for by `befores`. */
function pages(nav, list) {
  return new Pager(nav, ["Newer", "Older"], () => {
    if (list.befores.length < 2) return;
    list.befores.pop();
    look();
  }, () => {
    if (!list.next) return;
    list.befores.push(list.next);
    look();
  });
}

// --- the list --------------------------------------------------------------------------------

const rows = new Rows($("customers").tBodies[0], (customer) => {
  const link = h("a", { href: `#customer=${customer.id}` });
  const account = h("td", { class: "number soft" });
  return {
    node: h("tr", {}, h("td", { class: "number soft" }, customer.id), h("th", { scope: "row" }, link), account),
    update(customer) {
      write(link, customer.name);
      write(account, customer.account_id);
      if (customer.id === chosen.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    },
  };
});

const pager = pages($("pager"), asked);

$("search").addEventListener("input", settled(async () => {
  Object.assign(asked, { search: $("search").value.trim(), befores: [""] });
  await look();
  const shown = $("customers").tBodies[0].rows.length;
  announce(asked.next ? `The first ${shown} customers found` : shown === 1 ? "1 customer found" : `${shown} customers found`);
}));

async function lookAtList() {
  const { search } = asked;
  const before = asked.befores.at(-1);
  const query = new URLSearchParams({ limit: PAGE, search, ...(before && { before }) });
  const answer = await get(`customers/search?${query}`);
  if (search !== asked.search || before !== asked.befores.at(-1)) return; // something else is asked for now
  asked.next = answer.next;
  rows.show(answer.customers);
  $("customers").hidden = !answer.customers.length;
  $("empty").hidden = Boolean(answer.customers.length);
  write($("empty"), asked.search ? "No customer matches." : "There is no customer yet.");
  pager.show("", asked.befores.length > 1, Boolean(answer.next));
}

// --- one customer ----------------------------------------------------------------------------

const invoices = new Rows($("invoices").tBodies[0], (invoice) => {
  const button = h("button", {
    type: "button", class: "quiet danger",
    "aria-label": `Delete invoice ${invoice.id}`, click: () => deleteInvoice(invoice),
  }, "Delete");
  const [date, amount] = [h("th", { scope: "row", class: "date" }), h("td", { class: "number strong" })];
  return {
    node: h("tr", {}, h("td", { class: "number soft wide" }, invoice.id), date, amount, h("td", { class: "act" }, button)),
    update(invoice) {
      write(date, day(invoice.purchase_date));
      write(amount, money(invoice.purchase_price_cents));
    },
  };
});

const invoicePager = pages($("invoice-pager"), chosen);
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const day = (text) => {
  const date = new Date(`${text}T00:00:00Z`);
  return Number.isNaN(date.valueOf()) ? text : days.format(date);
};

async function follow() {
  const id = /^#customer=(\d{1,19})$/.exec(location.hash)?.[1] ?? null;
  if (id === chosen.id) return;
  const before = chosen.id;
  Object.assign(chosen, { id, befores: [""], next: null, customer: null });
  recordInvoice.reset({ purchase_date: today() });
  await look();
  if (id !== chosen.id) return;
  const goal = id ? $("customer-name") : document.querySelector(`a[href="#customer=${before}"]`);
  goal?.focus({ preventScroll: true });
  const { top } = goal?.getBoundingClientRect() ?? { top: 0 };
  if (top < 0 || top > innerHeight / 2) goal.scrollIntoView({ block: "start" });
}

async function lookAtCustomer() {
  const { id } = chosen;
  if (!id) return showCustomer(null);
  const before = chosen.befores.at(-1);
  try {
    const answer = await get(`customers/${id}/summary?limit=${PAGE}${before && `&before=${before}`}`);
    if (id === chosen.id && before === chosen.befores.at(-1)) showCustomer(answer);
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
    showCustomer(null, error.message);
  }
}

function showCustomer(answer, instead = "Choose a customer to see the invoices.") {
  $("detail").hidden = !answer;
  $("columns").classList.toggle("one", Boolean(answer));
  $("hint").hidden = Boolean(answer);
  write($("hint"), instead);
  if (!answer) return;
  const { customer, totals } = answer;
  Object.assign(chosen, { customer, totals, next: answer.next });
  write($("customer-name"), customer.name);
  showAbout(customer);
  $("customer-notice").hidden = answer.account_is_open;
  write($("customer-notice"), `There is no account ${customer.account_id}: what this customer spends shows in no account.`);
  writeFigure($("customer-revenue"), money(totals.total_revenue_cents));
  writeFigure($("customer-count"), count(totals.invoices));
  invoices.show(answer.invoices);
  $("invoices").hidden = !answer.invoices.length;
  $("no-invoices").hidden = Boolean(answer.invoices.length);
  const before = (chosen.befores.length - 1) * PAGE;
  const range = `${count(before + 1)} to ${count(before + answer.invoices.length)} of ${count(totals.invoices)}`;
  invoicePager.show(answer.invoices.length ? range : "", before > 0, Boolean(answer.next));
}

function showAbout(customer) {
  const about = $("customer-about");
  if (about.dataset.id === customer.id) return;
  about.dataset.id = customer.id;
  about.replaceChildren(
    `Customer ${customer.id} of `,
    withChange(h("a", { href: `${meta("accounts")}#account=${customer.account_id}` }, `account ${customer.account_id}`)),
    `, since ${day(customer.created_date.slice(0, 10))}`,
  );
}

// --- recording -------------------------------------------------------------------------------

const today = () => {
  const now = new Date();
  return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
};

const recordInvoice = new Form($("invoice"), {
  submit: "Record",
  fields: [
    field("purchase_date", "Date of purchase", { type: "date", max: "9999-12-31" }, (text, input) => {
      if (input.validity.badInput) throw new Error("This day does not exist.");
      if (!text) throw new Error("Enter the date of the purchase.");
      return text;
    }),
    field("purchase_price_cents", "Amount", { inputmode: "decimal", placeholder: "29.33", autocomplete: "off" }, parseMoney),
  ],
  async send(values, key) {
    await call("POST", "invoices", { body: { customer_id: chosen.id, ...values }, key });
    announce(`Invoice of ${money(values.purchase_price_cents)} recorded`);
    recordInvoice.reset({ purchase_date: values.purchase_date });
    $("field-purchase_price_cents").focus();
    chosen.befores = [""];
    look(); // the next one can be sent meanwhile
  },
});

$("new-customer").addEventListener("click", () => openForm($("new-customer"), "New customer", {
  submit: "Record customer",
  fields: [
    field("name", "Name", { maxlength: 200, autocomplete: "off" }, required("Enter the customer's name.")),
    field("account_id", "Account id", { inputmode: "numeric", autocomplete: "off", value: chosen.customer?.account_id }, (text) => {
      if (!text.trim()) throw new Error("Enter the id of the account that the customer belongs to.");
      if (!ID.test(text.trim())) throw new Error("An account's id is a number, such as 7.");
      return text.trim();
    }),
  ],
  async send(values, key) {
    const { id } = await call("POST", "customers", { body: values, key });
    return () => {
      announce(`${values.name} recorded as customer ${id}`);
      location.hash = `customer=${id}`;
    };
  },
}));

// --- deleting --------------------------------------------------------------------------------

async function deleteInvoice(invoice) {
  const text = `${money(invoice.purchase_price_cents)} of ${day(invoice.purchase_date)}. This can't be undone.`;
  const act = () => remove(`invoices/${invoice.id}`);
  if (!(await ask(`Delete invoice ${invoice.id}?`, text, "Delete invoice", act))) return;
  announce(`Invoice ${invoice.id} deleted`);
  await look();
  $("customer-name").focus();
}

$("delete-customer").addEventListener("click", async () => {
  const { customer, totals } = chosen;
  const number = totals.invoices === 1 ? "1 invoice goes" : `${count(totals.invoices)} invoices go`;
  const text = totals.invoices
    ? `${number} with the customer, ${money(totals.total_revenue_cents)} in all. This can't be undone.`
    : "The customer has no invoices. This can't be undone.";
  const act = () => remove(`customers/${customer.id}`);
  if (!(await ask(`Delete ${customer.name}?`, text, "Delete customer", act))) return;
  announce(`${customer.name} deleted`);
  history.pushState(null, "", location.pathname);
  await follow();
  $("search").focus();
});

addEventListener("hashchange", follow);
addEventListener("popstate", follow);

const look = watch(2, () => Promise.all([lookAtList(), lookAtCustomer()]), () => complain(null), complain);
follow();
