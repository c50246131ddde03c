// An account is chosen by its name, from what the accounts service suggests; its id is as good.

import { accountName, suggest } from "./account-names.js";
import { h, settled, write } from "./dom.js";
import { field } from "./form.js";

export const ID = /^(0|[1-9]\d{0,18})$/;

let lists = 0;
let pressed = false;
addEventListener("mousedown", () => { pressed = true; }, true);
for (const end of ["mouseup", "dragend", "keydown"]) addEventListener(end, () => { pressed = false; }, true);

/** Have `input` suggest accounts under it; `onChoice({id, name})` hears of the one that is chosen. */
function suggestAccounts(input, onChoice) {
  const list = h("ul", { id: `accounts-${(lists += 1)}`, role: "listbox", "aria-label": "Accounts", class: "suggested", hidden: true });
  const told = h("p", { class: "suggested told", hidden: true, role: "status" });
  let options = [];
  let active = -1;
  for (const [name, value] of Object.entries({
    role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id, autocomplete: "off", spellcheck: "false",
  })) input.setAttribute(name, value);
  const frame = h("div", { class: "suggesting" });
  input.replaceWith(frame);
  frame.append(input, list, told);

  function show(accounts, text = "") {
    active = -1;
    options = accounts.map((account, i) => h(
      "li",
      { id: `${list.id}-${i}`, role: "option", "aria-selected": "false", mousedown: (event) => { event.preventDefault(); choose(account); } },
      account.name, " ", h("span", { class: "soft" }, account.id),
    ));
    options.forEach((option, i) => { option.account = accounts[i]; });
    list.replaceChildren(...options);
    list.hidden = !options.length;
    write(told, text);
    told.hidden = !text;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  }

  function choose(account) {
    input.value = account.name;
    show([]);
    onChoice(account);
  }

  function move(by) {
    options[active]?.setAttribute("aria-selected", "false");
    active = (active + by + options.length + (active < 0 && by < 0 ? 1 : 0)) % options.length;
    options[active].setAttribute("aria-selected", "true");
    options[active].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[active].id);
  }

  const ask = settled(async () => {
    const text = input.value.trim();
    if (!text || document.activeElement !== input) return show([]);
    const found = await suggest(text).catch(() => null);
    if (text !== input.value.trim() || document.activeElement !== input) return;
    if (found) show(found, found.length ? "" : "No account matches.");
    else show([], "The accounts service does not answer: enter the account's id.");
  });

  input.addEventListener("input", () => {
    onChoice(null);
    ask();
  });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !list.hidden) move(step);
    else if (event.key === "Enter" && active >= 0) choose(options[active].account);
    else if (event.key === "Escape" && !(list.hidden && told.hidden)) show([]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener("blur", () => released(() => show([])));
}

/** Call `act` at once, or, while the mouse is pressed, after the click: what is clicked must not move away under it. */
function released(act) {
  if (pressed) addEventListener("mouseup", () => setTimeout(act), { once: true });
  else act();
}

/**
 * Have `input` choose the account that a list is of; `change(id)` hears of it, "" for all. Answers a function that
 * shows the account with this id as chosen.
 */
export function accountFilter(input, change) {
  let id = "";
  const show = () => {
    input.value = id && accountName(id);
  };
  suggestAccounts(input, (account) => {
    if (account || (id && !input.value.trim())) change(account?.id ?? "");
  });
  input.addEventListener("change", () => {
    const written = input.value.trim();
    if (ID.test(written) && written !== accountName(id)) change(written);
  });
  input.addEventListener("blur", show);
  return (now) => {
    const isOther = now !== id;
    id = now;
    if (isOther || document.activeElement !== input) show();
  };
}

/** A field whose value is an account's id; `id` is the one that it has from the start. `change()` hears of another. */
export function accountField(name, label, id, change = () => {}) {
  let chosen = id ? { id, name: accountName(id) } : null;
  const made = field(name, label, { placeholder: "Name or id", value: chosen?.name }, (text) => {
    const written = text.trim();
    if (!written) throw new Error("Enter the name or the id of the account that the customer belongs to.");
    if (chosen && written === chosen.name.trim()) return chosen.id;
    if (ID.test(written)) return written;
    throw new Error("Choose an account from those suggested, or enter its id, such as 7.");
  });
  suggestAccounts(made.input, (account) => {
    chosen = account;
    change();
  });
  return made;
}
