// Deletions that are held for a moment, so that one can take them back. They are sent when the page is left.

import { remove } from "./api.js";
import { $, announce, h } from "./dom.js";

const HELD_MS = 8000;

const held = new Map(); // by path

/** Whether this is to be deleted, and not to be shown. */
export const isHeld = (path) => held.has(path);

/**
 * Delete `path` in eight seconds, unless it is taken back. `options` are those of call(). `onChange()` is called
 * when it is to be shown again, or is gone; `goal()` answers what takes the focus from the line when that goes.
 */
export function hold(path, text, { query = "", options, onChange, goal }) {
  const undo = h("button", { type: "button", class: "quiet", click: () => { end(); announce("Not deleted"); } }, "Undo");
  const line = h("p", { class: "held" }, h("span", {}, text), undo);

  async function send(further) {
    clearTimeout(each.timer);
    const hadFocus = line.contains(document.activeElement); // which a hidden button loses
    undo.hidden = true;
    try {
      await remove(`${path}${query}`, { ...options, ...further });
      end(hadFocus);
    } catch (error) {
      held.delete(path);
      const why = error.status === 412 ? "Somebody has changed it meanwhile." : error.message;
      line.remove();
      tellUndone(`Not deleted: ${text.replace(/ deleted\.$/, "")}. ${why}`, goal);
      onChange();
    }
  }

  async function end(hadFocus = line.contains(document.activeElement)) {
    clearTimeout(each.timer);
    await onChange(held.delete(path));
    line.remove();
    if (hadFocus && document.activeElement === document.body) goal()?.focus();
  }

  const each = { timer: setTimeout(send, HELD_MS), send };
  held.set(path, each);
  $("held").append(line);
  announce(`${text} It can be taken back for ${HELD_MS / 1000} seconds.`);
  undo.focus();
  onChange();
}

/** Say what was not done after all, until somebody has read it; then `goal()` has the focus. */
export function tellUndone(text, goal) {
  const close = () => {
    line.remove();
    goal()?.focus();
  };
  const line = h("p", { class: "held" }, h("span", {}, text), h("button", { type: "button", class: "quiet", click: close }, "Close"));
  $("held").append(line);
  announce(text);
}

addEventListener("pagehide", () => {
  for (const each of held.values()) each.send({ keepalive: true });
});
