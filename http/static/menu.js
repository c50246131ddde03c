// A menu of what one can do with a thing: a button "…", arrow keys, Escape.

import { h } from "./dom.js";

const GAP = 4; // px between the button and its menu

/** The button; `items()` answers `[label, act]` for each thing to do, when the menu is opened. */
export function menu(label, items) {
  const button = h(
    "button",
    {
      type: "button", class: "quiet more", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": label,
      click: () => open(button, label, items(), 0),
      keydown(event) {
        if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
        event.preventDefault();
        open(button, label, items(), event.key === "ArrowUp" ? -1 : 0);
      },
    },
    "…",
  );
  return button;
}

let close = null; // the menu that is open

function open(button, label, items, focused) {
  const isOpen = button.getAttribute("aria-expanded") === "true";
  close?.();
  if (isOpen) return;
  const entries = items.map(([name, act]) => h("button", {
    type: "button", role: "menuitem", tabindex: "-1",
    click() {
      leave();
      act(button);
    },
  }, name));
  const list = h("div", { class: "menu", role: "menu", "aria-label": label, popover: "manual", keydown: choose }, ...entries);

  function choose(event) {
    const { key } = event;
    const here = entries.indexOf(document.activeElement);
    const goal = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: -1 }[key];
    if (goal !== undefined) entries.at(goal % entries.length).focus();
    else if (key === "Escape" || key === "Tab") leave();
    else return;
    if (key !== "Tab") event.preventDefault();
  }

  function leave() {
    close();
    button.focus();
  }

  const beside = (event) => !list.contains(event.target) && !button.contains(event.target) && close();
  const at = button.getBoundingClientRect();
  const away = () => { // a scroll from before it was opened may be told only now
    const { top, left } = button.getBoundingClientRect();
    if (top !== at.top || left !== at.left) close?.();
  };
  close = () => {
    close = null;
    list.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", beside);
    removeEventListener("scroll", away, true);
  };
  (button.closest("main") ?? document.body).append(list); // within a landmark
  list.showPopover();
  place(list, at);
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", beside);
  addEventListener("scroll", away, true);
  entries.at(focused).focus({ preventScroll: true });
}

/** Below the button, or above it where there is no room; its right edge at the button's. */
function place(list, { top, bottom, right }) {
  const { height, width } = list.getBoundingClientRect();
  const under = bottom + GAP + height <= innerHeight;
  list.style.top = `${under ? bottom + GAP : Math.max(0, top - GAP - height)}px`;
  list.style.left = `${Math.max(GAP, right - width)}px`;
}
