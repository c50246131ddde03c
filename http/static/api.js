// The calls of this page's service, and what it may ask of the other. With authentication on, whoever isn't signed
// in is asked to, once, and the call is tried again. The browser keeps the token where no script reads it.

import { $, h, meta } from "./dom.js";
import { Form, field } from "./form.js";

// The newest change that the other page has made, as it says in its links here: the first look waits until it shows.
let awaited = null;

const SESSION = "auth/session";
const PATIENCE_MS = 10_000;
const SLOWEST = 16; // bytes in a millisecond: so much longer a file may be on its way

/** What the service answered instead: `status`, `errors` [{field, message}], and a text for people. */
export class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The service answered ${status}.`);
    this.status = status;
    this.errors = problem.errors ?? [];
  }
}

/** No answer came. What was sent with a key may be sent again, and nobody knows whether it has been recorded. */
class Unreachable extends Error {
  constructor(service, key) {
    super(`The ${service} service does not answer.${key ? " Send it again: it is recorded once." : ""}`);
  }
}

/** Where a service is: behind a proxy, a path may come before all that it has. */
const at = (service) => new URL(service === meta("service") ? "." : meta(service), location.href).href;

/**
 * The JSON that the call answers, null for none. `path` has no slash in front. The other service is only asked
 * (GET). A Blob is sent as it is. With a `revision`, 412 unless the row has that; `keepalive` outlives the page. Throws Problem or Unreachable.
 */
export async function call(method, path, { body, key, revision, keepalive, service = meta("service") } = {}) {
  for (;;) {
    const before = signIns;
    const headers = {};
    if (key) headers["Idempotency-Key"] = key;
    if (revision !== undefined) headers["If-Match"] = `"${revision}"`;
    const waits = method === "GET" && service === meta("service") && awaited;
    if (waits) Object.assign(headers, { "Tally-After": waits, Prefer: "wait=5" });
    const sent = body instanceof Blob ? body : body && JSON.stringify(body);
    const response = await send(service, path, { method, headers, keepalive, body: sent }, key);
    if (response.status === 401 && service === meta("service")) {
      if (before === signIns) await signIn();
    } else {
      if (waits) awaited = null;
      if (waits && !response.ok) continue; // what takes longer, or never comes, is shown when it has come
      if (method !== "GET") tellOtherPage(response.headers.get("Tally-Event-Id"));
      return await answer(response, service, key);
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

const OTHER = { accounts: "customers", customers: "accounts" };

/** The link, with the newest change in its fragment where it leads to the other service's page. */
export function withChange(link) {
  const [page, fragment] = link.href.split("#");
  if (changed && page === at(OTHER[meta("service")])) {
    const kept = new URLSearchParams(fragment);
    kept.set("after", changed);
    link.href = `${page}#${kept}`;
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

export const get = (path, service) => call("GET", path, { service });

/** What is gone already is as good as deleted. */
export async function remove(path, options) {
  try {
    await call("DELETE", path, options);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

async function send(service, path, options, key) {
  const signal = AbortSignal.timeout(PATIENCE_MS + (options.body?.size ?? 0) / SLOWEST);
  try {
    return await fetch(at(service) + path, { ...options, credentials: "include", cache: "no-store", signal });
  } catch {
    throw new Unreachable(service, key);
  }
}

/** A whole number beyond those that a Number holds becomes a BigInt, in browsers that tell how it was written. */
const exact = (_, value, written) =>
  Math.abs(value) > Number.MAX_SAFE_INTEGER && /^-?\d+$/.test(written?.source) ? BigInt(written.source) : value;

async function answer(response, service, key) {
  let content = null;
  try {
    const text = await response.text();
    content = text ? JSON.parse(text, exact) : null;
  } catch {
    throw new Unreachable(service, key); // it ended in the middle
  }
  if (!response.ok) throw new Problem(response.status, content ?? {});
  return content;
}

// --- who it is --------------------------------------------------------------------------------

let who = null; // a promise of what the service says of it
let shownTo = null; // the name of who has seen this page
let signIns = 0; // so many times: a call that was sent before one of them is tried again

/** Who is signed in: `username`, "" where nobody signs in, and `admin`. Whoever isn't is asked to sign in. */
export function session() {
  who ??= get(SESSION).then((found) => {
    shownTo = found.username;
    $("sign-out").hidden = !found.username;
    for (const link of document.querySelectorAll('[data-for="admins"]')) link.hidden = !found.admin;
    return found;
  });
  who.catch(() => {
    who = null;
  });
  return who;
}

let signingIn = null;

/** Ask for name and password until somebody has signed in. */
function signIn() {
  signingIn ??= askToSignIn().finally(() => {
    signingIn = null;
    who = null;
    session();
    dispatchEvent(new Event("signed-in"));
  });
  return signingIn;
}

/** Sign in, and have the browser keep the token for both services, whose host names may differ. */
async function enter(values) {
  // As plain text: the login may be of another origin, and JSON would need a request beforehand.
  const response = await send("accounts", "auth/login", { method: "POST", body: JSON.stringify(values) });
  const { token } = await answer(response, "accounts");
  const kept = (service) => send(service, SESSION, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  await answer(await kept(meta("service")), meta("service"));
  await kept(OTHER[meta("service")]).catch(() => {}); // it may not run; then its own page asks again
  const found = await send(meta("service"), SESSION, { method: "GET" });
  if (found.status === 401) throw new Error("Your browser keeps no cookie for this page: allow it, and sign in again.");
  const { username } = await answer(found, meta("service"));
  if (shownTo !== null && shownTo !== username) await leave(); // nothing is recorded as theirs that another wrote
  signIns += 1;
}

/** Begin anew: nothing of what was shown stays, and nothing of it is sent. */
function leave() {
  location.reload();
  return new Promise(() => {});
}

function askToSignIn() {
  const form = h("form", { novalidate: true });
  const dialog = h(
    "dialog",
    { class: "question", "aria-labelledby": "sign-in-title" },
    h("h2", { id: "sign-in-title" }, "Sign in to Tally"),
    form,
  );
  let isIn = false;
  return new Promise((resolve) => {
    new Form(form, {
      submit: "Sign in",
      fields: [
        field("username", "User name", { autocomplete: "username", autocapitalize: "none", spellcheck: "false" }, required("Enter your user name.")),
        field("password", "Password", { type: "password", autocomplete: "current-password" }, required("Enter your password.")),
      ],
      async send(values) {
        await enter(values);
        isIn = true;
        resolve();
        dialog.close();
      },
    });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      if (isIn) dialog.remove();
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

$("sign-out").addEventListener("click", async () => {
  const forget = (service) => send(service, SESSION, { method: "DELETE" }).catch(() => {});
  await Promise.all(Object.keys(OTHER).map(forget));
  leave();
});
session().catch(() => {}); // who does not answer says so elsewhere
