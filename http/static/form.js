// Forms that say what is wrong at the field, and record once however often they are sent.

import { h, once, openDialog, write } from "./dom.js";

let fields = 0;

/**
 * A labelled input, or what `tag` says. `parse(text)` answers the value, or throws an Error with what is wrong.
 */
export function field(name, label, { tag = "input", ...attributes }, parse) {
  const id = `field-${(fields += 1)}`;
  const input = h(tag, { id, name, type: tag === "input" && "text", "aria-describedby": `${id}-error`, ...attributes });
  const error = h("p", { id: `${id}-error`, class: "error" });
  const node = h("div", { class: "field" }, h("label", { for: id }, label), input, error);
  return {
    name,
    node,
    input,
    parse: () => parse(input.value, input),
    blame(message) {
      write(error, message ?? "");
      if (message) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
  };
}

/** A form of `fields`; `send(values, key)` records them, and may throw a Problem. */
export class Form {
  #fields;
  #send;
  #button;
  #trouble = h("p", { class: "error", role: "alert" });
  #attempt = { body: null, key: null };

  constructor(form, { fields, submit, send, extra = [] }) {
    this.#fields = fields;
    this.#send = send;
    this.#button = h("button", { type: "submit" }, submit);
    form.append(
      ...fields.map((each) => each.node),
      h("div", { class: "form-end" }, ...extra, this.#button),
      this.#trouble,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      once(this.#button, () => this.#submit(), (error) => this.#blame(error));
    });
  }

  /** Empty again, as after it was recorded. */
  reset(values = {}) {
    this.#attempt = { body: null, key: null };
    write(this.#trouble, "");
    for (const each of this.#fields) {
      each.blame(null);
      each.input.value = values[each.name] ?? each.input.defaultValue;
    }
  }

  async #submit() {
    const values = this.#read();
    if (values) await this.#send(values, this.#keyFor(values));
  }

  #read() {
    const values = {};
    let first = null;
    write(this.#trouble, "");
    for (const each of this.#fields) {
      try {
        values[each.name] = each.parse();
        each.blame(null);
      } catch (error) {
        each.blame(error.message);
        first ??= each;
      }
    }
    first?.input.focus();
    return first ? null : values;
  }

  /** The same values sent again, since no answer came, carry the same key: they are recorded once. */
  #keyFor(values) {
    const body = JSON.stringify(values);
    if (this.#attempt.body !== body) this.#attempt = { body, key: newKey() };
    return this.#attempt.key;
  }

  #blame(error) {
    const faults = new Map((error.errors ?? []).map((each) => [each.field, each.message]));
    let first = null;
    for (const each of this.#fields) {
      if (!faults.has(each.name)) continue;
      each.blame(sentence(faults.get(each.name)));
      faults.delete(each.name);
      first ??= each;
    }
    first?.input.focus();
    if (!first || faults.size) write(this.#trouble, error.message);
  }
}

/** A form in a dialog of its own; `send(values, key)` records them, and answers what to do when the dialog is closed. */
export function openForm(opener, title, { submit, fields, send }) {
  const form = h("form", { novalidate: true });
  const dialog = h("dialog", { class: "question", "aria-labelledby": "form-title" }, h("h2", { id: "form-title" }, title), form);
  new Form(form, {
    submit,
    fields,
    extra: [h("button", { type: "button", class: "quiet", click: () => dialog.close() }, "Cancel")],
    async send(values, key) {
      const recorded = await send(values, key).catch((error) => {
        if (!dialog.open) openDialog(dialog, opener); // it was left meanwhile
        throw error;
      });
      dialog.close();
      recorded();
    },
  });
  openDialog(dialog, opener);
}

export const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

/** A key that nobody else makes. randomUUID is missing where the page came over plain HTTP. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Ask before something is done that can't be undone. Answers whether `act` was called, and went well. */
export function ask(title, text, action, act) {
  return new Promise((resolve) => {
    const trouble = h("p", { class: "error", role: "alert" });
    const agreed = async () => {
      write(trouble, "");
      await act();
      dialog.close("done");
    };
    const agree = ({ currentTarget }) => once(currentTarget, agreed, (error) => write(trouble, error.message));
    const dialog = h(
      "dialog",
      { class: "question", "aria-labelledby": "question-title", "aria-describedby": "question-text" },
      h("h2", { id: "question-title" }, title),
      h("p", { id: "question-text" }, text),
      trouble,
      h(
        "div",
        { class: "form-end" },
        h("button", { type: "button", class: "quiet", autofocus: true, click: () => dialog.close() }, "Cancel"),
        h("button", { type: "button", class: "danger solid", click: agree }, action),
      ),
    );
    openDialog(dialog, document.activeElement);
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "done"));
  });
}
