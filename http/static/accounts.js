// The accounts page: revenue over time; then the accounts, or one of them. What one looks at is in the address.

import { call, get, Problem, remove, required, session, withChange } from "./api.js";
import { sparkline } from "./chart.js";
import { change } from "./change.js";
import { day, dayOf } from "./days.js";
import { onLoad } from "./demo.js";
import { $, announce, entitle, fill, h, markSorted, meta, once, Pager, Rows, settled, write, writeFigure } from "./dom.js";
import { ask, field, openForm } from "./form.js";
import { showHistory } from "./history.js";
import { menu } from "./menu.js";
import { count, headline, money, share } from "./money.js";
import { Revenue, shortMonth, thisMonth, writeMonth } from "./periods.js";
import { RevenuePart } from "./revenue.js";
import { complain } from "./strip.js";
import { watch } from "./watch.js";

const PAGE = 25;
const CUSTOMERS = 50;
const LATEST = 10; // invoices, and credits, of one account
const FALLING = new Set(["customers", "revenue"]); // sorted the largest first, when first sorted by
const RENEWED_MS = 30_000; // revenue by month is asked for when a total has moved, and now and then

// --- where one is ----------------------------------------------------------------------------

const NOWHERE = { account: null, search: "", sort: "-revenue", order: "", page: 1, period: "" };
let place = readPlace();
let list = "#"; // the address of the list that one came from

function readPlace() {
  const told = new URLSearchParams(location.hash.slice(1));
  const one = (name, choices) => (choices.includes(told.get(name)) ? told.get(name) : NOWHERE[name]);
  const values = (select) => [...select.options].map((option) => option.value);
  return {
    search: (told.get("search") ?? "").slice(0, 200),
    sort: one("sort", values($("sort"))),
    page: /^[1-9]\d{0,9}$/.test(told.get("page") ?? "") ? Number(told.get("page")) : 1,
    period: told.get("period") ?? "",
    account: /^\d{1,19}$/.test(told.get("account") ?? "") ? told.get("account") : null,
    order: one("order", values($("customers-order"))),
  };
}

function address(there) {
  const told = Object.keys(NOWHERE).filter((name) => there[name] !== NOWHERE[name]);
  return `#${new URLSearchParams(told.map((name) => [name, there[name]]))}`;
}

const addressOf = (account) => address({ ...NOWHERE, account, period: place.period });

/** Look at something else. While one types or turns through periods, the step before isn't kept. */
function go(changes, replaces = false) {
  const there = address({ ...place, ...changes });
  history[replaces ? "replaceState" : "pushState"](null, "", there === "#" ? location.pathname : there);
  return follow();
}

async function follow() {
  const before = place;
  place = readPlace();
  if (place.account !== before.account) enter();
  showPlace();
  await look();
  if (place.account === before.account) return;
  const goal = place.account ? $("account-name") : $("accounts").querySelector(`a[data-id="${before.account}"]`);
  (goal ?? $("title")).focus({ preventScroll: Boolean(place.account) });
}

/** Nothing of what one looked at before is left. */
function enter() {
  if (place.account) scrollTo(0, 0);
  account = null;
  asked.total = null;
  revenue.revenue = null;
  for (const part of ["name", "about", "description"]) write($(`account-${part}`), "");
  for (const each of [customers, invoices, credits]) each.show([]);
  for (const figure of ["revenue", "accounts", "customers"]) write($(`total-${figure}`), "");
  showGone(null);
  lookAtLatest();
}

function showPlace() {
  const isOne = Boolean(place.account);
  if (!isOne) list = address(place);
  entitle(isOne ? account?.name ?? `Account ${place.account}` : "Accounts");
  $("list").hidden = isOne;
  $("account").hidden = $("account-head").hidden = !isOne;
  $("accounts-figure").hidden = isOne;
  $("account-back").href = list;
  fill($("search"), place.search);
  $("sort").value = place.sort;
  if (place.order) $("customers-order").value = place.order;
  for (const link of $("accounts").querySelectorAll("a[data-id]")) link.href = addressOf(link.dataset.id);
  markSorted($("accounts"), place.sort);
  revenue.period = place.period;
}

// --- revenue over time -----------------------------------------------------------------------

const revenue = new RevenuePart((period) => go({ period: period === "12" ? "" : period }));
const asked = { total: null, at: 0 }; // the total beside which the revenue was last asked for, and when

/** The total, and the revenue by month: what moves one moves the other. */
async function showTotal(total) {
  writeFigure($("total-revenue"), headline(total));
  if (asked.total === total && Date.now() - asked.at < RENEWED_MS) return;
  const { account } = place;
  const answer = await get(`${account ? `accounts/${account}/` : ""}revenue?by=month`);
  if (account !== place.account) return;
  Object.assign(asked, { total, at: Date.now() });
  revenue.revenue = new Revenue(answer.revenue);
}

// --- the accounts ----------------------------------------------------------------------------

const rows = new Rows($("accounts").tBodies[0], (made) => {
  let shown = made;
  const open = h("a", { "data-id": made.id });
  const under = h("span", { class: "under" });
  const [owner, customers] = [h("td", { class: "wide" }), h("td", { class: "number wide" })];
  const [trend, part] = [h("td", { class: "number medium" }), h("td", { class: "number soft medium" })];
  const revenue = amountCell();
  const more = menu(`More for account ${made.id}`, () => [
    ["Change…", (opener) => changeAccount(made.id, opener)],
    ["History", (opener) => showHistoryOf(shown, opener)],
    ["Delete…", (opener) => deleteAccount(made.id, opener)],
  ]);
  let drawn = "";
  return {
    node: h("tr", {}, h("td", { class: "number soft wide" }, made.id), h("th", { scope: "row" }, open, under), owner, customers, trend, revenue.node, part, h("td", { class: "act" }, more)),
    update(account) {
      shown = account;
      open.href = addressOf(account.id);
      write(open, account.name);
      write(under, `${account.owned_by} · ${account.customers === 1 ? "1 customer" : `${count(account.customers)} customers`}`);
      write(owner, account.owned_by);
      writeFigure(customers, count(account.customers));
      revenue.update(account.total_revenue_cents, account.most);
      write(part, share(account.total_revenue_cents, account.all));
      if (drawn === String(account.months)) return;
      drawn = String(account.months);
      trend.replaceChildren(sparkline(account.months, `Lowest ${money(least(account.months))}, highest ${money(most(account.months))}, latest ${money(account.months.at(-1))}`));
    },
  };
});

const least = (cents) => cents.map(BigInt).reduce((one, other) => (one < other ? one : other));
const most = (cents) => cents.map(BigInt).reduce((one, other) => (one > other ? one : other));

/** A cell with an amount, and a bar behind it. */
function amountCell() {
  const amount = h("span", { class: "amount" });
  const bar = h("span", { class: "bar" });
  return {
    node: h("td", { class: "number strong data" }, h("span", { class: "track" }, bar), amount),
    update(cents, most) {
      writeFigure(amount, money(cents));
      const [part, whole] = [BigInt(cents), BigInt(most)];
      bar.style.width = part > 0n ? `${Number((part * 1000n) / whole) / 10}%` : "0";
    },
  };
}

const pager = new Pager($("pager"), ["Previous", "Next"], () => turn(-1, found, PAGE), () => turn(1, found, PAGE));
let found = 0;

function turn(by, number, size) {
  const page = place.page + by;
  if (page >= 1 && (page - 1) * size < number) go({ page });
}

for (const head of $("accounts").querySelectorAll("th[data-sort]")) {
  const { sort } = head.dataset;
  const [one, other] = FALLING.has(sort) ? [`-${sort}`, sort] : [sort, `-${sort}`];
  head.querySelector("button").addEventListener("click", () => go({ sort: place.sort === one ? other : one, page: 1 }));
}
$("sort").addEventListener("change", () => go({ sort: $("sort").value, page: 1 }));

$("search").addEventListener("input", settled(async () => {
  await go({ search: $("search").value.trim(), page: 1 }, true);
  announce(found === 1 ? "1 account found" : `${count(found)} accounts found`);
}));

async function lookAtList() {
  const { search, sort, page } = place;
  const { last } = revenue.span;
  const order = sort.startsWith("-") ? "desc" : "asc";
  const query = new URLSearchParams({ search, sort: sort.replace("-", ""), order, limit: PAGE, offset: (page - 1) * PAGE, to: writeMonth(last) });
  const { hash } = location;
  const answer = await get(`accounts/summary?${query}`);
  if (hash !== location.hash) return; // something else is asked for now
  if (!answer.accounts.length && page > 1) return void setTimeout(() => go({ page: 1 }, true)); // they have become fewer
  showList(answer, last);
  await showTotal(answer.totals.total_revenue_cents);
}

function showList(answer, last) {
  const { totals } = answer;
  found = answer.found;
  writeFigure($("total-accounts"), count(totals.accounts));
  writeFigure($("total-customers"), count(totals.customers));
  const [all, most] = [totals.total_revenue_cents, answer.largest_revenue_cents];
  rows.show(answer.accounts.map((account) => ({ ...account, all, most })));
  write($("trend"), last === thisMonth() ? "12 months" : `To ${shortMonth(last)}`);
  $("accounts").hidden = !answer.accounts.length;
  $("begin").hidden = totals.accounts !== 0;
  $("demo").hidden = !answer.may_load_demo;
  $("looked-at").hidden = totals.accounts === 0;
  $("empty").hidden = Boolean(answer.accounts.length);
  showRange(pager, answer.accounts.length, found, PAGE);
}

function showRange(pager, number, all, size) {
  const before = (place.page - 1) * size;
  const range = number ? `${count(before + 1)} to ${count(before + number)} of ${count(all)}` : "";
  pager.show(range, place.page > 1, before + number < all);
}

// --- one account -----------------------------------------------------------------------------

let account = null; // what is known of the one that is shown

const customerAddress = (id) => `${meta("customers")}#customer=${id}`;

const customers = new Rows($("account-customers").tBodies[0], (customer) => {
  const name = withChange(h("a", { href: customerAddress(customer.id) }));
  const [revenue, part] = [amountCell(), h("td", { class: "number soft" })];
  return {
    node: h("tr", {}, h("td", { class: "number soft wide" }, customer.id), h("th", { scope: "row" }, name), revenue.node, part),
    update(customer) {
      write(name, customer.name);
      revenue.update(customer.total_revenue_cents, customer.most);
      write(part, share(customer.total_revenue_cents, customer.all));
    },
  };
});

const customerPager = new Pager(
  $("account-pager"), ["Previous", "Next"],
  () => turn(-1, account?.customers, CUSTOMERS), () => turn(1, account?.customers, CUSTOMERS),
);
$("customers-order").addEventListener("change", () => go({ order: $("customers-order").value, page: 1 }));

const summary = (id, more) => get(`accounts/${id}/summary?${new URLSearchParams(more)}`);

async function lookAtAccount() {
  const { hash } = location;
  const { account: id, order, page } = place;
  try {
    const answer = await summary(id, { ...(order && { order }), limit: CUSTOMERS, offset: (page - 1) * CUSTOMERS });
    if (hash !== location.hash) return;
    if (!answer.customers.length && page > 1) return void setTimeout(() => go({ page: 1 }, true));
    showAccount(answer);
    await showTotal(answer.account.total_revenue_cents);
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
    if (hash === location.hash) showGone(error.message);
  }
}

/** Say why there is nothing of the account to be seen; null: there is. */
function showGone(message) {
  $("main").classList.toggle("gone", message !== null);
  $("account-notice").hidden = message === null;
  write($("account-notice"), message);
  if (message === null) return;
  account = null;
  write($("account-name"), `Account ${place.account}`);
  for (const part of ["about", "description"]) write($(`account-${part}`), "");
}

function showAccount(answer) {
  ({ account } = answer);
  showGone(null);
  $("customers-order").value = answer.order;
  $("begin").hidden = true;
  $("looked-at").hidden = false;
  const { revision } = account;
  const changes = revision === 1 ? ", changed once since" : revision ? `, changed ${count(revision)} times since` : "";
  entitle(account.name);
  write($("account-name"), account.name);
  write($("account-about"), `Account ${account.id}, owned by ${account.owned_by}, opened on ${dayOf(account.created_date)}${changes}`);
  write($("account-description"), account.description);
  writeFigure($("total-customers"), count(account.customers));
  const all = account.total_revenue_cents;
  const amounts = answer.customers.map((customer) => customer.total_revenue_cents);
  const largest = amounts.length ? most(amounts) : 0n;
  customers.show(answer.customers.map((customer) => ({ ...customer, all, most: largest })));
  for (const { id, name } of answer.customers) names.set(id, name);
  $("account-customers").hidden = $("customers-order").hidden = !answer.customers.length;
  $("account-empty").hidden = Boolean(answer.customers.length);
  showRange(customerPager, answer.customers.length, account.customers, CUSTOMERS);
}

// --- its latest invoices and credits, of the customers service --------------------------------

const invoices = new Rows($("invoices").tBodies[0], () => entry("purchase_date", (row) => money(row.purchase_price_cents)));
const credits = new Rows($("credits").tBodies[0], () => entry("credit_date", (row) => money(-BigInt(row.credited_cents))));
const names = new Map(); // of customers, by id

function entry(date, amount) {
  const [when, customer, cents] = [h("th", { scope: "row", class: "date" }), h("a"), h("td", { class: "number strong" })];
  return {
    node: h("tr", {}, when, h("td", {}, customer), cents),
    update(row) {
      write(when, day(row[date]));
      write(customer, names.get(row.customer_id) ?? `Customer ${row.customer_id}`);
      customer.href = customerAddress(row.customer_id);
      withChange(customer);
      write(cents, amount(row));
    },
  };
}

async function readLatest() {
  const { account: id } = place;
  if (!id) return;
  const of = `account_id=${id}&order=-id&limit=${LATEST}`;
  const [sold, credited] = await Promise.all([get(`invoices?${of}`, "customers"), get(`credits?${of}`, "customers")]);
  const unknown = new Set([...sold.invoices, ...credited.credits].map((row) => row.customer_id).filter((each) => !names.has(each)));
  await Promise.all([...unknown].map(readName));
  if (id !== place.account) return;
  invoices.show(sold.invoices);
  credits.show(credited.credits);
  $("invoices").hidden = !sold.invoices.length;
  $("no-invoices").hidden = Boolean(sold.invoices.length);
  $("latest-credits").hidden = !credited.credits.length;
}

async function readName(id) {
  try {
    names.set(id, (await get(`customers/${id}`, "customers")).name);
  } catch (error) {
    if (error.status !== 404) throw error; // it is gone by now
  }
}

function complainOfLatest(error) {
  $("latest-notice").hidden = !error;
  write($("latest-notice"), error ? `${error.message} What is shown here may be old.` : "");
  $("latest").classList.toggle("stale", Boolean(error));
}

// --- opening, changing, deleting -------------------------------------------------------------

const accountFields = ({ name, owned_by, description }, mayGiveAway) => [
  field("name", "Name", { maxlength: 200, autocomplete: "off", value: name }, required("Enter the account's name.")),
  ...(mayGiveAway ? [field("owned_by", "Owner", { maxlength: 200, autocomplete: "off", value: owned_by }, required("Enter the name of the user who owns the account."))] : []),
  field("description", "Description (may be empty)", { maxlength: 2000, autocomplete: "off", value: description }, (text) => text),
];

/** What wants an answer before it asks is begun once, however often the opener is pressed. */
const begin = (opener, act) => once(opener, act, complain);

async function openAccount(target) {
  const { username } = await session();
  openForm(target, "New account", {
    submit: "Open account",
    fields: accountFields({ owned_by: username }, true),
    async send(values, key) {
      const { id } = await call("POST", "accounts", { body: values, key });
      return () => {
        announce(`${values.name} opened as account ${id}`);
        go({ ...NOWHERE, account: id });
      };
    },
  });
}
for (const id of ["new-account", "first-account"]) $(id).addEventListener("click", () => begin($(id), () => openAccount($(id))));

const accountNow = async (id) => (await summary(id, { limit: 1 })).account;

/** Change an account as it stands now: if another changes it meanwhile, one is told. */
const changeAccount = (id, opener) => begin(opener, async () => {
  const [account, { username, admin }] = await Promise.all([accountNow(id), session()]);
  openForm(opener, `Change ${account.name}`, {
    submit: "Save",
    fields: accountFields(account, admin || !username),
    async send(values, key) {
      await change(`accounts/${id}`, account, values, key, () => accountNow(id));
      return () => {
        announce(`${values.name} changed`);
        look();
      };
    },
  });
});
$("account-change").addEventListener("click", () => account && changeAccount(account.id, $("account-change")));
$("account-print").addEventListener("click", () => print());
const showHistoryOf = ({ id, name }, opener) => showHistory(opener, `History of ${name}`, `accounts/${id}/history`);
$("account-acts").append(menu("More for this account", () => [
  ["History", (opener) => account && showHistoryOf(account, opener)],
  ["Delete account…", (opener) => account && deleteAccount(account.id, opener)],
]));

const deleteAccount = (id, opener) => begin(opener, async () => {
  const account = await accountNow(id);
  const { customers, total_revenue_cents } = account;
  const number = customers === 1 ? "1 customer goes" : `${count(customers)} customers go`;
  const text = customers
    ? `${number} with the account, and all of their invoices, ${headline(total_revenue_cents)} in all. This can't be undone.`
    : "The account has no customers. This can't be undone.";
  const act = () => remove(`accounts/${account.id}${customers ? "?cascade=true" : ""}`).catch((error) => {
    throw error.status === 409 ? new Error("The account has customers by now: look at them first.") : error;
  });
  if (!(await ask(`Delete ${account.name}?`, text, "Delete account", act))) return;
  announce(`${account.name} deleted`);
  if (place.account) history.pushState(null, "", list === "#" ? location.pathname : list);
  await follow();
  $("search").focus();
});

// Its customers are loaded on the other page: a page changes its own service only.
const customersAnswer = () => get("health/ready", "customers").then(() => null);
const goOn = () => location.assign(withChange(h("a", { href: meta("customers") })).href);
onLoad($("load-demo"), $("demo-trouble"), customersAnswer, goOn);

// --- all of it, again and again ---------------------------------------------------------------

showPlace();
addEventListener("hashchange", follow);
addEventListener("popstate", follow);

const look = watch(1, () => (place.account ? lookAtAccount() : lookAtList()), () => complain(null), complain);
const lookAtLatest = watch(5, readLatest, () => complainOfLatest(null), complainOfLatest);
