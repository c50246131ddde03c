// A button that opens a menu of what can be done with something.

import { h } from "./dom.js";

/** The button, in a frame with its menu. `actions()` answers [name, act(button), is dangerous] for each. */
export function menuButton(label, actions) {
  const list = h("ul", { role: "menu", class: "menu", "aria-label": label, hidden: true });
  const button = h("button", {
    type: "button", class: "quiet dots", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": label, click: () => (list.hidden ? open() : close()),
  }, "⋯");
  const frame = h("div", { class: "menu-frame" }, button, list);

  function open() {
    list.replaceChildren(...actions().map(([name, act, isDangerous]) => h(
      "li",
      { role: "none" },
      h("button", {
        type: "button", role: "menuitem", tabindex: "-1", class: isDangerous ? "danger" : null,
        click: () => { close(); button.focus(); act(button); },
      }, name),
    )));
    list.hidden = false;
    button.setAttribute("aria-expanded", "true");
    list.querySelector("button").focus();
  }

  function close() {
    list.hidden = true;
    button.setAttribute("aria-expanded", "false");
  }

  frame.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const items = [...list.querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) items.at(to % items.length).focus();
    else if (event.key === "Escape") { close(); button.focus(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  frame.addEventListener("focusout", (event) => {
    if (!frame.contains(event.relatedTarget)) close();
  });
  return frame;
}
