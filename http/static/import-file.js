// A file of purchases is imported: chosen, read as one says, looked at before anything of it is recorded.

import { accountField } from "./account-field.js";
import { accountName, learn } from "./account-names.js";
import { call, withChange } from "./api.js";
import { day } from "./days.js";
import { announce, h, meta, openDialog, save, settled, write } from "./dom.js";
import { newKey, sentence } from "./form.js";
import { count, headline, headOf, money } from "./money.js";

const MOST_BYTES = 16 * 1024 * 1024; // as the service takes
const COLUMNS = { customer: "Customer column", date: "Date column", amount: "Amount column", id: "Reference column" };
const ISO = "2024-01-31";
const PARTS = { "%d": "31", "%m": "01", "%Y": "2024", "%y": "24", "%b": "Jan", "%B": "January", "%H:%M": "17:45" };
const ABOUT =
  "Each row becomes an invoice of the customer of its name. Nothing is recorded before you have seen what would be.";
const KNOWN = {
  content: "Without one, a row is known by its customer, date and amount: what is there already isn't recorded again.",
  id: "What is there already with the same reference isn't recorded again.",
};
// Where such a reason is told, what mends it is among what is folded.
const MENDED_BELOW = /Expected (UTF|one row for each|what the first row)|can't be negative/;

/** "31.01.2024" for "%d.%m.%Y". */
const example = (format) => format.replace(/%H:%M|%\w/g, (part) => PARTS[part]) || ISO;

let choices = 0;

const grid = (...fields) => h("div", { class: "import-fields" }, ...fields.map(({ node }) => node));

/** A labelled select of `[value, text]`s. */
function choice(label, options, change) {
  const id = `choice-${(choices += 1)}`;
  const select = h("select", { id, autocomplete: "off", change });
  const node = h("div", { class: "field" }, h("label", { for: id }, label), select);
  const fill = (some) => select.replaceChildren(...some.map(([value, text]) => h("option", { value }, text)));
  fill(options);
  return { node, select, fill };
}

/** What is wrong with the fields, of which some are none of this dialog's. */
const faults = (error) => (error.errors ?? []).map((each) => sentence(each.message)).join(" ");

const those = (bad) => (bad === 1 ? "the bad row" : `the ${count(bad)} bad rows`);

const several = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

/** "3 invoices and 1 credit": what is new. */
function newOnes({ new_invoices, new_credits }) {
  const credits = new_credits.count ? several(new_credits.count, "credit") : "";
  if (credits && !new_invoices.count) return credits;
  return several(new_invoices.count, "invoice") + (credits && ` and ${credits}`);
}

/** Open the dialog; `accountId` is the account that one looks at, if it is one. */
export function importFile(opener, accountId) {
  new Import(opener, accountId);
}

class Import {
  #file = null; // {name, content}: another object for each that is chosen
  #look = null;
  #preview = null;
  #rejects = null; // a CSV file of the bad rows
  #turn = 0; // a newer question makes the answers to those before it void
  #attempt = { query: null, key: null };
  #isSending = false;
  #opener;

  constructor(opener, accountId) {
    this.#opener = opener;
    this.#build(accountId);
    this.dialog.addEventListener("close", () => { this.#turn += 1; });
    openDialog(this.dialog, opener);
  }

  #build(accountId) {
    const again = settled(() => this.#ask());
    const change = () => this.#ask();
    this.account = accountField("account_id", "Account", accountId, again);
    this.columns = Object.fromEntries(Object.entries(COLUMNS).map(([name, label]) => [name, choice(label, [], () => {
      this.#fit(name);
      this.#ask();
    })]));
    const { customer, date, amount, id } = this.columns;
    this.known = h("p", { class: "soft" });
    id.node.append(this.known);
    this.format = choice("Dates are written as", [], change);
    this.decimal = choice("Decimal mark", [[".", "1,234.50"], [",", "1.234,50"]], change);
    this.encoding = choice("Encoding", [
      ["", "As the file tells"], ["cp1252", "Windows-1252 (Western Europe)"], ["iso-8859-15", "ISO 8859-15"],
      ["mac-roman", "Mac Roman"], ["utf-16-le", "UTF-16 (LE)"], ["utf-16-be", "UTF-16 (BE)"],
    ], change);
    this.delimiter = choice("Between columns", [
      ["", "As the first line tells"], [",", "Comma"], [";", "Semicolon"], ["\t", "Tab"], ["|", "Vertical line"],
    ], change);
    this.negative = choice("A negative amount is", [["", "Refused"], ["credit", "Recorded as a credit"]], change);
    this.lines = choice("Rows that share a reference are", [
      ["", "Refused"], ["sum", "One invoice: the sum"], ["first", "One invoice: the first amount"],
    ], change);
    this.more = h("details", { class: "behind" }, h("summary", {}, "More about the file"),
      grid(this.encoding, this.delimiter, this.negative, this.lines));
    this.fields = h("div", { hidden: true },
      grid(this.account, customer, date, amount, this.format, this.decimal, id),
      this.more);
    this.picked = h("strong", {}, "Choose a CSV file");
    this.input = h("input", {
      type: "file", class: "visually-hidden", accept: ".csv,.txt,.tsv,text/csv,text/plain",
      click: () => { this.input.value = ""; }, // so that the same one, mended, is another
      change: () => this.#take(this.input.files[0]),
    });
    this.hint = h("span", { class: "soft" }, "or drop it here");
    this.drop = h("label", { class: "drop" }, this.input, this.picked, this.hint);
    this.trouble = h("p", { class: "error", role: "alert" });
    this.said = h("p", { class: "soft", role: "status" });
    this.shown = h("div", {});
    this.cancel = h("button", { type: "button", class: "quiet", click: () => this.dialog.close() }, "Cancel");
    this.submit = h("button", { type: "button", "aria-disabled": "true", click: () => this.#record() }, "Import");
    this.heading = h("h2", { id: "import-title", tabindex: "-1" }, "Import a file");
    this.body = h("div", {},
      h("p", { class: "soft" }, ABOUT),
      this.drop, this.fields, this.trouble, this.said, this.shown);
    this.dialog = h("dialog", { class: "question import", "aria-labelledby": "import-title" },
      this.heading, this.body, h("div", { class: "form-end" }, this.cancel, this.submit));
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
      this.dialog.addEventListener(kind, (event) => this.#drag(event));
    }
  }

  #drag(event) {
    event.preventDefault();
    this.drop.classList.toggle("over", event.type === "dragenter" || event.type === "dragover");
    if (event.type === "drop" && this.drop.isConnected && !this.#isSending) this.#take(event.dataTransfer.files[0]);
  }

  /** Take a file as it is now: it may be written to again. */
  async #take(file) {
    if (!file) return;
    const turn = (this.#turn += 1);
    this.#file = this.#look = null;
    this.#show(null);
    if (file.size > MOST_BYTES) {
      return this.#blame("The file has more than 16 MiB: the command tally import takes any size.");
    }
    try {
      const content = new Blob([await file.arrayBuffer()]);
      if (turn !== this.#turn) return;
      this.#file = { name: file.name, content };
    } catch {
      return this.#blame("The file can't be read.");
    }
    write(this.picked, file.name);
    write(this.hint, "Choose another, or drop it here");
    this.encoding.select.value = this.delimiter.select.value = "";
    await this.#ask();
  }

  #query() {
    const { encoding, delimiter, negative } = this;
    const chosen = Object.entries({ encoding, delimiter, negative, ...(this.#look && this.columns) });
    const told = Object.fromEntries(chosen.map(([name, { select }]) => [name, select.value]));
    if (!this.format.node.hidden && !this.#isOpen()) told.date_format = this.format.select.value;
    if (!this.decimal.node.hidden) told.decimal = this.decimal.select.value;
    if (told.id) told.lines = this.lines.select.value;
    try {
      told.account_id = this.account.parse();
    } catch {
      // it is asked for below
    }
    return new URLSearchParams(Object.entries(told).filter(([, value]) => value));
  }

  /** Have the file read as it is said now, and show what would be recorded. */
  async #ask() {
    if (!this.#file) return;
    const turn = (this.#turn += 1);
    write(this.trouble, "");
    write(this.said, "Reading …");
    this.#preview = null;
    this.#showButton();
    const query = this.#query();
    try {
      if (this.#isOpen()) query.delete("account_id"); // only look
      const { look, preview, rejects } = await call("POST", `imports?${query}&dry_run=true`, { body: this.#file.content });
      if (turn !== this.#turn) return;
      if (look && JSON.stringify(look.columns) !== JSON.stringify(this.#look?.columns)) {
        this.#look = look;
        this.#fill();
        return this.#ask();
      }
      this.#rejects = rejects;
      this.#show(preview);
    } catch (error) {
      if (turn === this.#turn) this.#blame(faults(error) || error.message);
    }
  }

  /** Whether it is still to be said how dates are written, as they could be read in several ways. */
  #isOpen() {
    return !this.format.node.hidden && this.format.select.value === "?";
  }

  #blame(text) {
    this.#show(null);
    write(this.said, "");
    write(this.trouble, text);
  }

  /** Offer the file's columns, and choose those that seem to be meant. */
  #fill() {
    const { columns, guess } = this.#look;
    const names = columns.map(({ name }) => [name, name]);
    for (const [name, { select, fill }] of Object.entries(this.columns)) {
      const before = select.value;
      fill([["", name === "id" ? "None" : "Choose …"], ...names]);
      select.value = columns.some((each) => each.name === before) ? before : guess[name];
    }
    this.fields.hidden = false;
    for (const name of Object.keys(this.columns)) this.#fit(name);
  }

  /** Ask only where it is in doubt how the column that is chosen now is written. */
  #fit(name) {
    const chosen = this.columns[name].select.value;
    const { dates = [""], decimals = ["."] } = this.#look.columns.find((each) => each.name === chosen) ?? {};
    if (name === "date") {
      const formats = [...new Set([...dates, "", ...this.#look.date_formats])];
      const texts = formats.map((format) => [format, example(format)]);
      this.format.fill([...(dates.length > 1 ? [["?", "Choose …"]] : []), ...texts]);
      this.format.node.hidden = dates.includes("");
    }
    if (name === "amount") {
      this.decimal.node.hidden = decimals.length === 1 && decimals[0] === ".";
      this.decimal.select.value = decimals[0] ?? ".";
    }
    if (name === "id") {
      this.lines.node.hidden = !chosen;
      write(this.known, chosen ? KNOWN.id : KNOWN.content);
    }
  }

  // --- what would be, or was, recorded -----------------------------------------------------------

  #show(preview) {
    this.#preview = preview;
    if (preview) write(this.said, `${several(preview.rows, "row")}: ${newOnes(preview)} to record`);
    else write(this.said, this.#look ? this.#missing() : "");
    this.shown.replaceChildren(...(preview ? this.#told(preview) : []));
    if (preview?.reasons.some((each) => MENDED_BELOW.test(each.reason))) this.more.open = true;
    this.#showButton();
  }

  #missing() {
    if (this.#isOpen()) return "These dates could be read in several ways: choose how they are written.";
    const column = ["customer", "date", "amount"].find((name) => !this.columns[name].select.value);
    return column ? `Choose the column that has the ${column}.` : "Choose the account that the rows belong to.";
  }

  #told(preview) {
    const { bad_rows: bad, warnings } = preview;
    const leave = h("label", { for: "skip-bad" }, `Leave ${those(bad)} out`);
    this.skip = h("input", { type: "checkbox", id: "skip-bad", change: () => this.#showButton() });
    return [
      figures(preview),
      ...warnings.map((text) => h("p", { class: "notice" }, `${text[0].toUpperCase()}${text.slice(1)}.`)),
      ...(bad ? [badRows(preview, this.#download(bad)), h("p", { class: "check" }, this.skip, leave)] : []),
      ...(preview.sample.length ? sample(preview) : []),
    ];
  }

  /** A way to the bad rows as a file, which is mended and imported alone. */
  #download(bad) {
    const text = this.#rejects;
    if (text === null) return "They are too long to be downloaded here: tally import --rejects writes them to a file.";
    const name = `${this.#file.name.replace(/\.[^.]*$/, "")}-bad-rows.csv`;
    return h("button", { type: "button", class: "quiet", click: () => save(name, text) }, `Download ${those(bad)}`);
  }

  #showButton() {
    const preview = this.#preview;
    const number = preview ? preview.new_invoices.count + preview.new_credits.count : 0;
    write(this.submit, preview ? (number ? `Import ${newOnes(preview)}` : "Nothing new") : "Import");
    const can = number > 0 && (!preview.bad_rows || this.skip.checked) && !this.#isSending;
    this.submit.setAttribute("aria-disabled", String(!can));
    this.body.inert = this.#isSending; // what is told when it is recorded is of this file
  }

  async #record() {
    if (this.submit.getAttribute("aria-disabled") === "true") {
      if (this.#preview?.bad_rows) this.skip.focus();
      return;
    }
    const query = this.#query();
    const account = query.get("account_id");
    if (this.skip.checked) query.set("skip_bad", "true");
    const { content } = this.#file;
    const { query: before, content: sent } = this.#attempt;
    if (before !== String(query) || sent !== content) this.#attempt = { query: String(query), content, key: newKey() };
    this.#isSending = true;
    this.#showButton();
    write(this.trouble, "");
    try {
      const recorded = await call("POST", `imports?${query}`, { body: content, key: this.#attempt.key });
      await learn([account]);
      this.#end(recorded, account);
      dispatchEvent(new Event("recorded"));
    } catch (error) {
      if (!this.dialog.open) openDialog(this.dialog, this.#opener); // it was left meanwhile
      write(this.trouble, faults(error) || error.message);
    } finally {
      this.#isSending = false;
      this.#showButton();
    }
  }

  #end(recorded, account) {
    const { bad_rows: bad } = recorded;
    const rest = bad ? [h("p", {}, `${several(bad, "bad row")} left out.`), h("p", {}, this.#download(bad))] : [];
    this.#file = null;
    const link = withChange(h("a", { href: `${meta("accounts")}#account=${account}` }, accountName(account)));
    write(this.heading, "Imported");
    this.body.replaceChildren(h("p", {}, `${newOnes(recorded)} recorded in `, link, "."), figures(recorded), ...rest);
    this.submit.remove();
    write(this.cancel, "Close");
    announce(`${newOnes(recorded)} recorded`);
    this.heading.focus();
  }
}

/** A figure, and what is to be said below it. */
const figure = (name, value, below) =>
  h("div", {}, h("dt", {}, name), h("dd", {}, value, h("span", { class: "below" }, below)));

function figures(preview) {
  const { new_invoices: invoices, new_credits: credits, known_credits: former } = preview;
  const known = (number) => (number ? `${count(number)} known already` : "");
  const days = [...new Set([preview.first, preview.last])].filter(Boolean).map(day).join(" – ");
  return h("dl", { class: "figures small" },
    figure("New customers", count(preview.new_customers), known(preview.known_customers)),
    figure("Invoices", count(invoices.count), known(preview.known_invoices.count)),
    ...(credits.count || former.count ? [figure("Credits", count(credits.count), known(former.count))] : []),
    figure("Together", headline(BigInt(invoices.cents) + BigInt(credits.cents)), days),
  );
}

/** The head of a table; each column has a name and a class. */
const head = (...columns) =>
  h("thead", {}, h("tr", {}, ...columns.map(([name, kind]) => h("th", { scope: "col", class: kind }, name))));

/** What is wrong with how many rows, and with each; `download` leads to them as a file. */
function badRows({ bad, bad_rows, reasons }, download) {
  const line = ({ line, reason }) => h("tr", {}, h("td", { class: "number soft" }, count(line)), h("td", {}, reason));
  const rest = bad_rows - bad.length;
  return h("div", { class: "notice" },
    h("h3", { id: "bad-title" }, several(bad_rows, "bad row")),
    h("ul", {}, ...reasons.slice(0, 5).map((each) => h("li", {}, `${count(each.count)} × ${each.reason}`))),
    h("details", { class: "behind" }, h("summary", {}, "Show them"),
      h("table", { "aria-labelledby": "bad-title" },
        head(["Line", "number"], ["What is wrong"]),
        h("tbody", {}, ...bad.map(line))),
      ...(rest ? [h("p", {}, `And ${count(rest)} more.`)] : [])),
    h("p", {}, download));
}

function sample({ sample: rows }) {
  const line = (row) => h("tr", {},
    h("td", { class: "date" }, day(row.date)), h("th", { scope: "row" }, row.customer),
    h("td", { class: "wide" }, row.reference ?? ""), h("td", { class: "number strong" }, money(row.cents)));
  return [
    h("h3", { id: "sample-title" }, "The first rows as they are read"),
    h("table", { "aria-labelledby": "sample-title" },
      head(["Date"], ["Customer"], ["Reference", "wide"], [headOf("Amount"), "number"]),
      h("tbody", {}, ...rows.map(line))),
  ];
}
