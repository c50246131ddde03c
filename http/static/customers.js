// The customers page: all customers, one of them, and all invoices; which of them one sees is in the address.

import { $ } from "./dom.js";
import { customer } from "./customer-view.js";
import { list } from "./customer-list.js";
import { invoices } from "./invoice-list.js";
import { onPlace, place } from "./place.js";
import { complain } from "./strip.js";
import { watch } from "./watch.js";

const VIEWS = { list, customer, invoices };

let shown = null; // [its name, the fragment]

const viewAt = (here) => ("invoices" in here ? "invoices" : /^\d{1,19}$/.test(here.customer) ? "customer" : "list");

/** Show what the address says. Each view has `enter(place)`, `look()`, `arrive(place before)` and its `sections`. */
async function follow() {
  const [here, fragment] = [place(), location.hash];
  const name = viewAt(here);
  if (shown?.fragment === fragment && shown.name === name) return;
  const before = shown;
  shown = { name, fragment, here };
  for (const [each, view] of Object.entries(VIEWS)) for (const id of view.sections) if (each !== name) $(id).hidden = true;
  for (const [id, is] of [["to-customers", name !== "invoices"], ["to-invoices", name === "invoices"]]) {
    if (is) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  const same = before?.name === name && before.here.customer === here.customer;
  VIEWS[name].enter(here, same);
  await look();
  const isUndoing = $("held").contains(document.activeElement);
  if (before && !same && shown.fragment === fragment && !isUndoing) VIEWS[name].arrive(before.here);
}

onPlace(follow);
const look = watch(2, async () => shown && VIEWS[shown.name].look(), () => complain(null), complain);
addEventListener("recorded", () => look());
follow();
