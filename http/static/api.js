// The service's calls. With authentication on, whoever has no token is asked to sign in, once, and
// the call is tried again.

import { $, h, meta } from "./dom.js";
import { Form, field } from "./form.js";

// The newest change that the other page has made, as it says in its links here: the first look waits until it shows.
let awaited = null;

const TOKEN = "tally.token"; // in sessionStorage: of this tab, and gone with it
const PATIENCE_MS = 10_000;

/** What the service answered instead: `status`, `errors` [{field, message}], and a text for people. */
export class Problem extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
    this.errors = problem.errors ?? [];
    this.retryAfter = retryAfter;
  }
}

/** No answer came. */
export class Unreachable extends Error {
  constructor() {
    super(`The ${meta("service")} service does not answer.`);
  }
}

/** The JSON that the call answers, null for none. Throws Problem or Unreachable. */
export async function call(method, path, { body, key } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (key) headers["Idempotency-Key"] = key;
    const waits = method === "GET" && awaited;
    if (waits) Object.assign(headers, { "Tally-After": waits, Prefer: "wait=5" });
    const response = await send(path, { method, headers, body: body && JSON.stringify(body) });
    if (response.status === 401) {
      await signIn(token);
    } else {
      if (waits) awaited = null;
      if (waits && !response.ok) continue; // what takes longer, or never comes, is shown when it has come
      if (method !== "GET") tellOtherPage(response.headers.get("Tally-Event-Id"));
      return await answer(response);
    }
  }
}

/** Have the links to the other service's page say what was changed here. */
function tellOtherPage(events) {
  if (!events) return;
  changed = events;
  document.querySelectorAll("a").forEach(withChange);
}

let changed = null;

/** The link, with the newest change in its fragment where it leads to the other service's page. */
export function withChange(link) {
  const other = new URL(link.href, location);
  if (changed && other.origin !== location.origin) {
    const kept = new URLSearchParams(other.hash.slice(1));
    kept.set("after", changed);
    link.href = `${other.origin}${other.pathname}#${kept}`;
  }
  return link;
}

function takeOver() {
  const told = new URLSearchParams(location.hash.slice(1));
  awaited = told.get("after");
  if (!awaited) return;
  told.delete("after");
  history.replaceState(null, "", told.size ? `#${told}` : location.pathname);
}
takeOver();
addEventListener("hashchange", takeOver);

export const get = (path) => call("GET", path);

/** What is gone already is as good as deleted. */
export async function remove(path) {
  try {
    await call("DELETE", path);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

async function send(path, options) {
  try {
    return await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    throw new Unreachable();
  }
}

async function answer(response) {
  let content = null;
  try {
    const text = await response.text();
    content = text ? JSON.parse(text) : null;
  } catch {
    throw new Unreachable(); // it ended in the middle
  }
  if (!response.ok) throw new Problem(response.status, content ?? {}, response.headers.get("Retry-After"));
  return content;
}

/** What a call that is sent otherwise says of who is signed in; null for nobody. */
export function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token && `Bearer ${token}`;
}

/** Who is signed in; "" for nobody. */
export function userName() {
  const content = sessionStorage.getItem(TOKEN)?.split(".")[1];
  if (!content) return "";
  const bytes = Uint8Array.from(atob(content.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes)).sub;
}

let signingIn = null;

/** Ask for name and password until there is another token than the one that was refused. */
function signIn(refused) {
  if (sessionStorage.getItem(TOKEN) !== refused) return Promise.resolve();
  sessionStorage.removeItem(TOKEN);
  signingIn ??= askToSignIn().finally(() => {
    signingIn = null;
    showSignOut();
    dispatchEvent(new Event("signed-in"));
  });
  return signingIn;
}

function askToSignIn() {
  const form = h("form", { novalidate: true });
  const dialog = h(
    "dialog",
    { class: "question", "aria-labelledby": "sign-in-title" },
    h("h2", { id: "sign-in-title" }, "Sign in to Tally"),
    form,
  );
  return new Promise((resolve) => {
    new Form(form, {
      submit: "Sign in",
      fields: [
        field("username", "User name", { autocomplete: "username", autocapitalize: "none", spellcheck: "false" }, required("Enter your user name.")),
        field("password", "Password", { type: "password", autocomplete: "current-password" }, required("Enter your password.")),
      ],
      async send(values) {
        // As plain text: the login may be of another origin, and JSON would need a request beforehand.
        const response = await send(meta("login"), { method: "POST", body: JSON.stringify(values) });
        sessionStorage.setItem(TOKEN, (await answer(response)).token);
        resolve();
        dialog.close();
      },
    });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      if (sessionStorage.getItem(TOKEN)) dialog.remove();
      else dialog.showModal(); // there is nothing to see without
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function required(message) {
  return (text) => {
    if (!text.trim()) throw new Error(message);
    return text;
  };
}

function showSignOut() {
  $("sign-out").hidden = !sessionStorage.getItem(TOKEN);
}

$("sign-out").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.reload(); // nothing of what was shown stays
});
showSignOut();
