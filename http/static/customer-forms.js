// What is recorded and changed on the customers page, each in a form.

import { accountField, ID } from "./account-field.js";
import { call, required } from "./api.js";
import { change } from "./change.js";
import { today } from "./days.js";
import { announce } from "./dom.js";
import { field, openForm } from "./form.js";
import { money, parseMoney, typed } from "./money.js";
import { go } from "./place.js";

export const recorded = () => dispatchEvent(new Event("recorded"));

export const dateField = (name, label, value) => field(name, label, { type: "date", max: "9999-12-31", value }, (text, input) => {
  if (input.validity.badInput) throw new Error("This day does not exist.");
  if (!text) throw new Error("Enter the date.");
  return text;
});

export const amountField = (name, value) =>
  field(name, "Amount", { inputmode: "decimal", placeholder: "29.33", autocomplete: "off", value }, parseMoney);

export const referenceField = () =>
  field("reference", "Reference (may be empty)", { maxlength: 100, autocomplete: "off" }, (text) => text.trim() || undefined);

const nameField = (value) =>
  field("name", "Name", { maxlength: 200, autocomplete: "off", value }, required("Enter the customer's name."));

/** Ask for a new customer, and show it. */
export function newCustomer(opener, accountId) {
  openForm(opener, "New customer", {
    submit: "Record customer",
    fields: [nameField(), accountField("account_id", "Account", accountId)],
    async send(values, key) {
      const { id } = await call("POST", "customers", { body: values, key });
      return () => {
        announce(`${values.name} recorded as customer ${id}`);
        go({ customer: id });
      };
    },
  });
}

/** What a form does when something is recorded and its dialog closed. */
const saying = (text) => () => {
  announce(text);
  recorded();
};

export function changeCustomer(opener, customer) {
  const row = { ...customer };
  openForm(opener, "Change customer", {
    submit: "Save",
    fields: [nameField(row.name), accountField("account_id", "Account", row.account_id)],
    async send(values, key) {
      await change(`customers/${row.id}`, row, values, key);
      return saying("Saved");
    },
  });
}

export function changeInvoice(opener, entry) {
  const row = { purchase_date: entry.date, purchase_price_cents: Number(entry.cents), revision: entry.revision };
  openForm(opener, `Change invoice ${entry.id}`, {
    submit: "Save",
    fields: [dateField("purchase_date", "Date of purchase", entry.date), amountField("purchase_price_cents", typed(entry.cents))],
    async send(values, key) {
      await change(`invoices/${entry.id}`, row, values, key);
      return saying(`Invoice ${entry.id} saved`);
    },
  });
}

/** Record a credit for a customer; of an invoice of it, if one is given: then what is left of that. */
export function newCredit(opener, customerId, invoice) {
  const left = invoice && typed(BigInt(invoice.cents) - BigInt(invoice.credited_cents));
  const ofInvoice = field("invoice_id", "Id of the invoice (may be empty)", { inputmode: "numeric", autocomplete: "off" }, (text) => {
    if (text.trim() && !ID.test(text.trim())) throw new Error("An invoice's id is a number, such as 7.");
    return text.trim() || undefined;
  });
  openForm(opener, invoice ? `Credit invoice ${invoice.id}` : "Record a credit", {
    submit: "Record credit",
    fields: [
      dateField("credit_date", "Date of the credit", today()),
      amountField("credited_cents", left),
      referenceField(),
      ...(invoice ? [] : [ofInvoice]),
    ],
    async send(values, key) {
      const of = invoice && { invoice_id: invoice.id };
      await call("POST", "credits", { body: { customer_id: customerId, ...values, ...of }, key });
      return saying(`Credit of ${money(values.credited_cents)} recorded`);
    },
  });
}
