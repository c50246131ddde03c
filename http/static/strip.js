// The strip that tells the state of the service: a line while all is well, and what is wrong otherwise.

import { get, session } from "./api.js";
import { $, announce, h, meta, write } from "./dom.js";
import { State } from "./state.js";
import { watch } from "./watch.js";

const state = new State($("strip"), `${meta("service")} service`);
const notice = h("p", { class: "notice", hidden: true });
$("strip").append(notice);

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
let answered = null; // when the page was last up to date

/** Tell at the top of the page why it does not move, and of when it is; null when it does again. */
export function complain(error) {
  if (!error) answered = new Date();
  $("main").classList.toggle("stale", Boolean(error));
  const since = answered ? ` What is shown is of ${time.format(answered)}.` : "";
  const text = error ? `${error.message} Trying again…${since}` : "";
  notice.hidden = !text;
  if (write(notice, text)) announce(text || "The page is up to date again.");
}

async function look() {
  const asked = performance.now();
  state.show(await get("status"), asked);
  await session(); // while nobody has said who it is, it is asked again
}

watch(2, look, () => {}, () => state.show(null));
