// The accounts page: figures that move, a table, a chart, and one account's customers; accounts are opened and deleted.

import { call, get, Problem, remove, required, userName, withChange } from "./api.js";
import { $, announce, h, meta, Pager, Rows, settled, write, writeFigure } from "./dom.js";
import { ask, field, openForm } from "./form.js";
import { count, money } from "./money.js";
import { complain } from "./strip.js";
import { watch } from "./watch.js";

const PAGE = 25;
const CUSTOMERS = 50;
const FALLING = new Set(["customers", "revenue"]); // sorted the largest first, when first sorted by

const asked = { search: "", sort: "revenue", order: "desc", offset: 0 };
const opened = { id: null, sort: "id", afters: [""], next: null, account: null };

// --- the table -------------------------------------------------------------------------------

const rows = new Rows($("accounts").tBodies[0], (account) => {
  const open = h("button", { type: "button", class: "link", "aria-haspopup": "dialog", click: () => show(account.id) });
  const under = h("span", { class: "under" });
  const [id, owner] = [h("td", { class: "number soft wide" }), h("td", { class: "wide" })];
  const [customers, revenue] = [h("td", { class: "number wide" }), h("td", { class: "number strong" })];
  return {
    node: h("tr", {}, id, h("th", { scope: "row" }, open, under), owner, customers, revenue),
    update(account) {
      write(id, account.id);
      write(open, account.name);
      write(under, `${account.owned_by} · ${account.customers === 1 ? "1 customer" : `${count(account.customers)} customers`}`);
      write(owner, account.owned_by);
      writeFigure(customers, count(account.customers));
      writeFigure(revenue, money(account.total_revenue_cents));
    },
  };
});

const pager = new Pager($("pager"), ["Previous", "Next"], () => turn(-PAGE), () => turn(PAGE));
let found = 0;

function turn(by) {
  const offset = asked.offset + by;
  if (offset < 0 || offset >= found) return;
  asked.offset = offset;
  look();
}

function sortBy(sort, order) {
  Object.assign(asked, { sort, order, offset: 0 });
  showSort();
  look();
}

function showSort() {
  $("sort").value = `${asked.sort} ${asked.order}`;
  for (const head of $("accounts").querySelectorAll("th")) {
    if (head.dataset.sort !== asked.sort) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", asked.order === "asc" ? "ascending" : "descending");
  }
}

for (const head of $("accounts").querySelectorAll("th")) {
  const { sort } = head.dataset;
  const first = FALLING.has(sort) ? "desc" : "asc";
  const other = { asc: "desc", desc: "asc" };
  head.querySelector("button").addEventListener("click", () => {
    sortBy(sort, asked.sort === sort ? other[asked.order] : first);
  });
}
$("sort").addEventListener("change", () => sortBy(...$("sort").value.split(" ")));

$("search").addEventListener("input", settled(async () => {
  asked.search = $("search").value.trim();
  asked.offset = 0;
  await look();
  announce(found === 1 ? "1 account found" : `${count(found)} accounts found`);
}));

function showTable(answer) {
  found = answer.found;
  rows.show(answer.accounts);
  $("accounts").hidden = !answer.accounts.length;
  $("empty").hidden = Boolean(answer.accounts.length);
  write($("empty"), answer.totals.accounts === 0 ? "There is no account yet." : "No account matches.");
  const last = asked.offset + answer.accounts.length;
  const range = last ? `${count(asked.offset + 1)} to ${count(last)} of ${count(found)}` : "";
  pager.show(range, asked.offset > 0, last < found);
}

// --- the chart -------------------------------------------------------------------------------

const bars = new Rows($("chart"), (account) => {
  const open = h("button", { type: "button", class: "link", "aria-haspopup": "dialog", click: () => show(account.id) });
  const amount = h("span", { class: "amount" });
  const bar = h("span", { class: "bar" });
  return {
    node: h("li", {}, open, amount, h("span", { class: "track", "aria-hidden": "true" }, bar)),
    update(account) {
      write(open, account.name);
      write(amount, money(account.total_revenue_cents));
      bar.style.width = `${account.share}%`;
    },
  };
});

function showChart(largest) {
  const earning = largest.filter((account) => BigInt(account.total_revenue_cents) > 0n);
  const most = earning.length ? BigInt(earning[0].total_revenue_cents) : 1n;
  bars.show(earning.map((account) => ({ ...account, share: Number((BigInt(account.total_revenue_cents) * 1000n) / most) / 10 })));
  $("chart").closest("section").hidden = !earning.length;
}

// --- one account -----------------------------------------------------------------------------

const customers = new Rows($("account-customers").tBodies[0], (customer) => {
  const name = withChange(h("a", { href: `${meta("customers")}#customer=${customer.id}` }));
  const revenue = h("td", { class: "number strong" });
  return {
    node: h("tr", {}, h("td", { class: "number soft" }, customer.id), h("th", { scope: "row" }, name), revenue),
    update(customer) {
      write(name, customer.name);
      writeFigure(revenue, money(customer.total_revenue_cents));
    },
  };
});

const customerPager = new Pager($("account-pager"), ["Previous", "Next"], () => {
  if (opened.afters.length < 2) return;
  opened.afters.pop();
  look();
}, () => {
  if (!opened.next) return;
  opened.afters.push(opened.next);
  look();
});

for (const head of $("account-customers").querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    Object.assign(opened, { sort: head.dataset.sort, afters: [""], next: null });
    for (const other of $("account-customers").querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", opened.sort === "id" ? "ascending" : "descending");
    look();
  });
}

const show = (id) => { location.hash = `account=${id}`; };

function follow() {
  const id = /^#account=(\d{1,19})$/.exec(location.hash)?.[1] ?? null;
  if (id === opened.id) return;
  Object.assign(opened, { id, afters: [""], next: null, account: null });
  if (!id) return $("account").close();
  for (const part of ["name", "about", "description", "revenue", "count"]) write($(`account-${part}`), "");
  customers.show([]);
  showGone(false);
  if (!$("account").open) $("account").showModal();
  look();
}

async function lookAtAccount() {
  const { id, sort } = opened;
  if (!id) return;
  const after = opened.afters.at(-1);
  const from = after && { [sort === "id" ? "after" : "offset"]: after };
  try {
    const answer = await get(`accounts/${id}/summary?${new URLSearchParams({ limit: CUSTOMERS, sort, ...from })}`);
    if (id === opened.id && sort === opened.sort && after === opened.afters.at(-1)) showAccount(answer);
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
    if (id !== opened.id) return;
    write($("account-name"), `Account ${id}`);
    write($("account-about"), "");
    write($("account-notice"), error.message);
    showGone(true);
  }
}

/** Whether there is nothing of the account to be shown but why. */
function showGone(gone) {
  $("account").classList.toggle("gone", gone);
  $("account-notice").hidden = !gone;
  $("account-delete").hidden = gone || !opened.account;
}

function showAccount(answer) {
  const { account } = answer;
  Object.assign(opened, { account, next: answer.next });
  showGone(false);
  write($("account-name"), account.name);
  write($("account-about"), `Account ${account.id}, owned by ${account.owned_by}`);
  write($("account-description"), answer.description);
  $("account-description").hidden = !answer.description;
  writeFigure($("account-revenue"), money(account.total_revenue_cents));
  writeFigure($("account-count"), count(account.customers));
  customers.show(answer.customers);
  $("account-customers").hidden = !answer.customers.length;
  $("account-empty").hidden = Boolean(answer.customers.length);
  const before = (opened.afters.length - 1) * CUSTOMERS;
  const range = `${count(before + 1)} to ${count(before + answer.customers.length)} of ${count(account.customers)}`;
  customerPager.show(range, before > 0, Boolean(answer.next));
}

/** Close the account. The address changes first: a "close" event comes later than what one sees, or than "Back". */
function leave() {
  history.pushState(null, "", location.pathname);
  follow();
}

$("account-close").addEventListener("click", leave);
$("account").addEventListener("cancel", leave); // Escape
$("account").addEventListener("click", (event) => {
  if (event.target === $("account")) leave(); // beside it
});
addEventListener("hashchange", follow);
addEventListener("popstate", follow);

// --- opening and deleting --------------------------------------------------------------------

$("new-account").addEventListener("click", () => openForm($("new-account"), "New account", {
  submit: "Open account",
  fields: [
    field("name", "Name", { maxlength: 200, autocomplete: "off" }, required("Enter the account's name.")),
    field("owned_by", "Owner", { maxlength: 200, autocomplete: "off", value: userName() }, required("Enter the name of the user who owns the account.")),
    field("description", "Description (may be empty)", { autocomplete: "off" }, (text) => text),
  ],
  async send(values, key) {
    const { id } = await call("POST", "accounts", { body: values, key });
    return () => {
      announce(`${values.name} opened as account ${id}`);
      show(id);
    };
  },
}));

$("account-delete").addEventListener("click", async () => {
  const { account } = opened;
  const { customers, total_revenue_cents } = account;
  const number = customers === 1 ? "1 customer goes" : `${count(customers)} customers go`;
  const text = customers
    ? `${number} with the account, and all of their invoices, ${money(total_revenue_cents)} in all. This can't be undone.`
    : "The account has no customers. This can't be undone.";
  const act = () => remove(`accounts/${account.id}${customers ? "?cascade=true" : ""}`).catch((error) => {
    throw error.status === 409 ? new Error("The account has customers by now: look at them first.") : error;
  });
  if (!(await ask(`Delete ${account.name}?`, text, "Delete account", act))) return;
  announce(`${account.name} deleted`);
  leave();
  await look();
  $("search").focus();
});

// --- all of it, again and again ---------------------------------------------------------------

async function refresh() {
  const query = String(new URLSearchParams({ ...asked, limit: PAGE }));
  const [answer] = await Promise.all([get(`accounts/summary?${query}`), lookAtAccount()]);
  if (query !== String(new URLSearchParams({ ...asked, limit: PAGE }))) return; // something else is asked for now
  if (answer.accounts.length === 0 && asked.offset > 0) asked.offset = 0; // they have become fewer
  writeFigure($("total-revenue"), money(answer.totals.total_revenue_cents));
  writeFigure($("total-accounts"), count(answer.totals.accounts));
  writeFigure($("total-customers"), count(answer.totals.customers));
  showTable(answer);
  showChart(answer.largest);
}

showSort();
const look = watch(1, refresh, () => complain(null), complain);
follow();
