// All customers: searched, of one account or of all, in an order.

import { accountName, learn } from "./account-names.js";
import { accountFilter } from "./account-field.js";
import { get, session, withChange } from "./api.js";
import { newCustomer, recorded } from "./customer-forms.js";
import { day, moment } from "./days.js";
import { accountsOfDemo, onLoad } from "./demo.js";
import { $, announce, entitle, fill, h, markSorted, meta, Pager, Rows, settled, write, writeFigure } from "./dom.js";
import { importFile } from "./import-file.js";
import { money } from "./money.js";
import { addressOf, change, turnBack, turnOn } from "./place.js";
import { isHeld } from "./undo.js";

const PAGE = 25;
const RANKS = /revenue$|last$/;

let asked = {};
let next = null;

const rows = new Rows($("customers").tBodies[0], (customer) => {
  const link = h("a", { href: addressOf({ customer: customer.id }) });
  const account = withChange(h("a"));
  const under = h("span", { class: "under" });
  const [last, revenue] = [h("td", { class: "wide date" }), h("td", { class: "number strong" })];
  return {
    node: h(
      "tr", {},
      h("td", { class: "number soft wide" }, customer.id),
      h("th", { scope: "row" }, link, under),
      h("td", { class: "wide" }, account),
      last, revenue,
    ),
    update(customer) {
      write(link, customer.name);
      write(account, accountName(customer.account_id));
      account.href = `${meta("accounts")}#account=${customer.account_id}`;
      withChange(account);
      const bought = customer.last_purchase ? day(customer.last_purchase) : "–";
      write(under, `${accountName(customer.account_id)} · ${bought}`);
      write(last, bought);
      writeFigure(revenue, money(customer.total_revenue_cents));
    },
  };
});

const pager = new Pager($("pager"), ["Previous", "Next"], () => asked.at && turnBack(), () => next && turnOn(next));

let isToldOf = true; // how many are found

$("search").addEventListener("input", settled(() => {
  isToldOf = false;
  change({ search: $("search").value.trim() }, { again: true }); // a letter is no place to come back to
}));

function tell(number) {
  isToldOf = true;
  announce(next ? `The first ${number} customers found` : number === 1 ? "1 customer found" : `${number} customers found`);
}

const showAccount = accountFilter($("account"), (account) => change({ account }));

$("sort").addEventListener("change", () => change({ order: $("sort").value }));
for (const head of $("customers").querySelectorAll("th[data-sort]")) {
  const { sort } = head.dataset;
  const first = sort === "name" ? "name" : `-${sort}`;
  head.querySelector("button").addEventListener("click", () => {
    const order = asked.order === first ? { "-": sort, n: "-name" }[first[0]] : first;
    change({ order: order === "-id" ? "" : order });
  });
}

let demo; // the demo's accounts: a promise of their ids, null where there are others

/** Where there is no customer, offer to load the demo's, if the accounts are the demo's. */
async function offerDemo(isEmpty) {
  if (isEmpty && (await session()).admin) demo ??= accountsOfDemo().catch(() => null);
  $("demo").hidden = !isEmpty || !(await demo);
}

onLoad($("load-demo"), $("demo-trouble"), async () => ({ accounts: await demo }), () => {
  recorded();
  $("list-title").focus();
});

/** What GET /customers is asked for, as far as it knows it. */
const filters = ({ search, account }) => ({ ...(search && { search }), ...(account && { account_id: account }) });

function showExport() {
  const order = RANKS.test(asked.order) ? "" : asked.order || "-id";
  $("export").href = `customers?${new URLSearchParams({ format: "csv", ...filters(asked), ...(order && { order }) })}`;
  $("export").hidden = /^\d+$/.test(asked.search); // there, it is no id
}

async function showNames(customers, now) {
  if (!(await learn([...customers.map((each) => each.account_id), ...(now.account ? [now.account] : [])])) || now !== asked) return;
  rows.show(customers);
  showAccount(now.account);
}

export const list = {
  sections: ["list"],

  enter({ search = "", account = "", order = "", at = "" }) {
    asked = { search, account, order: [...$("sort").options].some((each) => each.value === order) ? order : "", at };
    next = null;
    entitle("Customers");
    fill($("search"), search);
    showAccount(account);
    $("sort").value = asked.order;
    markSorted($("customers"), asked.order || "-id");
    showExport();
    $("list").hidden = false;
    $("to-customers").href = addressOf({ search, account, order, at });
  },

  async look() {
    const now = asked;
    const sorted = RANKS.test(now.order) ? { rank: now.order } : { order: now.order || "-id" };
    const query = new URLSearchParams({ limit: PAGE, ...filters(now), ...sorted, ...(now.at && { after: now.at }) });
    const answer = await get(`customers/search?${query}`);
    if (now !== asked) return; // something else is asked for now
    const isSorted = answer.ranked !== false;
    $("list-note").hidden = isSorted && !answer.as_of;
    write($("list-note"), !isSorted ? "Adding up what each customer bought, to sort them. Until then, the newest come first."
      : answer.as_of ? `There are many customers: their order is that of ${moment(answer.as_of)}.` : "");
    next = answer.next;
    const customers = answer.customers.filter((each) => !isHeld(`customers/${each.id}`));
    rows.show(customers);
    $("customers").hidden = !customers.length;
    $("empty").hidden = Boolean(customers.length);
    write($("empty"), now.search || now.account ? "No customer matches." : "There is no customer yet.");
    pager.show("", Boolean(now.at), Boolean(next));
    await offerDemo(!customers.length && !now.search && !now.account && !now.at);
    if (isSorted && !isToldOf) tell(customers.length);
    showNames(customers, now);
  },

  arrive(before) {
    const link = before.customer && document.querySelector(`#customers a[href="${addressOf({ customer: before.customer })}"]`);
    (link || $("list-title")).focus();
  },
};

$("import").addEventListener("click", () => importFile($("import"), asked.account));
$("new-customer").addEventListener("click", () => newCustomer($("new-customer"), asked.account));
