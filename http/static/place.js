// What one looks at is in the address's fragment: so Back, a reload, a bookmark and a link lead to the same.

const FLAGS = new Set(["invoices"]); // they have no value

/** What the address says, by name. */
export const place = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

/** The address of a place; what is empty is left out. */
export function addressOf(wanted) {
  const told = Object.entries(wanted).filter(([name, value]) => FLAGS.has(name) || value);
  const parts = told.map(([name, value]) => (FLAGS.has(name) ? name : String(new URLSearchParams({ [name]: value }))));
  return `#${parts.join("&")}`;
}

/** Go there. `befores` are where the pages began that were turned over; without `again`, Back leads back. */
export function go(wanted, { befores = [], again = false } = {}) {
  history[again ? "replaceState" : "pushState"]({ befores }, "", addressOf(wanted));
  dispatchEvent(new Event("placed"));
}

/** Ask for others in a list: from their beginning. */
export const change = (wanted, how) => go({ ...place(), ...wanted, at: "" }, how);

/** Turn to the page that begins `at`. */
export function turnOn(at) {
  const here = place();
  go({ ...here, at }, { befores: [...(history.state?.befores ?? []), here.at ?? ""] });
}

/** Turn to the page before, or to the first where nobody knows which that was. */
export function turnBack() {
  const befores = [...(history.state?.befores ?? [])];
  const at = befores.pop();
  go({ ...place(), at }, { befores });
}

/** Call `follow` when one is elsewhere. */
export function onPlace(follow) {
  for (const event of ["placed", "hashchange", "popstate"]) addEventListener(event, follow);
}
