// Building and updating the document. Text comes from users: it only ever becomes text nodes.

export const $ = (id) => document.getElementById(id);

export const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;

// What shows nothing and makes a text look like another, as other programs may publish it; see http/visible.py.
const DISGUISING =
  /[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]/g;

/** The text with such characters written out. */
const seen = (text) =>
  text.replace(DISGUISING, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** An element with attributes (functions are event listeners) and children, strings among them. */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.map((child) => (typeof child === "string" ? seen(child) : child)));
  return node;
}

/** An element of a drawing, with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Write `text`, when it isn't there already. Answers whether it was another. */
export function write(node, text) {
  text = text == null ? "" : seen(String(text));
  if (node.textContent === text) return false;
  node.textContent = text;
  return true;
}

/** Write a figure; one that replaces another shows for a moment that it moved. */
export function writeFigure(node, text) {
  const moved = node.textContent !== "" && node.textContent !== "–";
  if (!write(node, text) || !moved) return;
  node.classList.remove("moved");
  void node.offsetWidth; // so that the animation begins again
  node.classList.add("moved");
}

/** Say something to those who listen instead of look; the same again is said again. */
export const announce = (text) => $("announce").replaceChildren(h("span", {}, text));

/** Say in the window's title what is looked at. */
export function entitle(what) {
  document.title = `${seen(what)} · Tally`;
}

/** Have a field say `value`. One that says it already is left alone: somebody may be writing in it. */
export function fill(field, value) {
  if (field.value.trim() !== value) field.value = value;
}

/** Rows that belong to things with an id: updated in place, so that nothing flickers. */
export class Rows {
  #parent;
  #make;
  #rows = new Map();

  /** `make(item)` answers `{node, update(item)}`. */
  constructor(parent, make) {
    this.#parent = parent;
    this.#make = make;
  }

  show(items) {
    const rows = new Map();
    for (const item of items) {
      const row = this.#rows.get(item.id) ?? this.#make(item);
      row.update(item);
      rows.set(item.id, row);
    }
    for (const [id, row] of this.#rows) if (!rows.has(id)) row.node.remove();
    this.#rows = rows;
    arrange(this.#parent, [...rows.values()].map((row) => row.node));
  }
}

/** Put `nodes` in order. The one that holds the focus stays put: moving it would lose the focus. */
function arrange(parent, nodes) {
  if (!nodes.length) return;
  const fixed = Math.max(0, nodes.findIndex((node) => node.contains(document.activeElement)));
  if (nodes[fixed].parentNode !== parent) parent.append(nodes[fixed]);
  for (let i = fixed - 1; i >= 0; i--) {
    if (nodes[i].nextSibling !== nodes[i + 1]) parent.insertBefore(nodes[i], nodes[i + 1]);
  }
  for (let i = fixed + 1; i < nodes.length; i++) {
    if (nodes[i - 1].nextSibling !== nodes[i]) parent.insertBefore(nodes[i], nodes[i - 1].nextSibling);
  }
}

/** Say in the heads of a table what its rows are sorted by; descending with a `-` before it. */
export function markSorted(table, order) {
  for (const head of table.querySelectorAll("th[data-sort]")) {
    if (head.dataset.sort !== order.replace("-", "")) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", order.startsWith("-") ? "descending" : "ascending");
  }
}

/** "Newer" and "Older", or whatever the two ways are called. */
export class Pager {
  #text;
  #back;
  #on;

  constructor(nav, [back, on], onBack, onOn) {
    this.#text = h("span", { class: "soft" });
    this.#back = h("button", { type: "button", class: "quiet", click: onBack }, back);
    this.#on = h("button", { type: "button", class: "quiet", click: onOn }, on);
    nav.append(this.#text, h("span", { class: "pager-ways" }, this.#back, this.#on));
  }

  /** Buttons that lead nowhere keep the focus: they are marked, not disabled. */
  show(text, canGoBack, canGoOn) {
    write(this.#text, text);
    for (const [button, can] of [[this.#back, canGoBack], [this.#on, canGoOn]]) {
      button.setAttribute("aria-disabled", String(!can));
      button.hidden = !canGoBack && !canGoOn;
    }
  }
}

/** Open a dialog. When it is closed it is gone, and `opener` has the focus again. */
export function openDialog(dialog, opener) {
  dialog.addEventListener("close", () => {
    dialog.remove();
    opener?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** Act once at a time: the button is marked while `act()` is under way. `onTrouble(error)` hears of what goes wrong. */
export async function once(button, act, onTrouble) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await act();
  } catch (error) {
    onTrouble(error);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/** Have the browser save a text as a CSV file. The mark at its beginning tells spreadsheets that it is UTF-8. */
export function save(name, text) {
  const link = h("a", { download: name });
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // no browser tells when it has read it
}

/** Call `then` when nothing has happened for a moment. */
export function settled(then, milliseconds = 180) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(then, milliseconds);
  };
}
