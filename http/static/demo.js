// The demo: an empty accounts page opens its accounts, and then an empty customers page records the rest.

import { call, get } from "./api.js";
import { once, write } from "./dom.js";

const TOLD = "Made by the demo on "; // as store/demo.py describes its accounts
const ACCOUNTS = 6;

/**
 * Load this service's part when the button is pressed: `prepare()` answers the body that the call is to have, `then()`
 * goes on. Nothing is loaded twice: where something is recorded, the service refuses.
 */
export function onLoad(button, trouble, prepare, then) {
  const load = async () => {
    write(trouble, "");
    await call("POST", "demo", { body: await prepare() });
    then();
  };
  button.addEventListener("click", () => once(button, load, (error) => write(trouble, error.message)));
}

/** The ids of the demo's accounts, where there are no others and no customers; else null. */
export async function accountsOfDemo() {
  const found = await get(`accounts?limit=${ACCOUNTS + 1}`, "accounts");
  const isDemo = ({ account, customers }) => account.description.startsWith(TOLD) && !customers.length;
  return found.length === ACCOUNTS && found.every(isDemo) ? found.map(({ account }) => account.id) : null;
}
