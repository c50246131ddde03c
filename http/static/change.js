// A row is changed: only what differs, and not what somebody else has changed meanwhile without a word.

import { accountName, learn } from "./account-names.js";
import { call, get, Problem } from "./api.js";
import { day } from "./days.js";
import { money } from "./money.js";

/** What can be changed: its name, and how a value of it is written. */
export const FIELDS = {
  name: ["Name", (value) => value],
  description: ["Description", (value) => value || "none"],
  owned_by: ["Owner", (value) => value],
  account_id: ["Account", accountName],
  purchase_price_cents: ["Amount", money],
  purchase_date: ["Date", day],
};

/** The fields that differ in two rows, as `[name, label, shown]`. */
export const differing = (one, other) =>
  Object.entries(FIELDS)
    .filter(([name]) => name in other && one[name] !== other[name])
    .map(([name, told]) => [name, ...told]);

/** A value as it is written; a text of people's own in quotes. */
const quoted = (value, shown) => (shown === value ? `“${shown}”` : shown);

/**
 * Change what differs. `row` is as it was shown; when somebody else has changed it, it becomes what it is now, as
 * `read()` answers it, and a Problem tells of that.
 */
export async function change(path, row, values, key, read = () => get(path)) {
  const body = Object.fromEntries(Object.entries(values).filter(([name, value]) => row[name] !== value));
  if (!Object.keys(body).length) return;
  try {
    await call("PATCH", path, { body, key, revision: row.revision });
  } catch (error) {
    if (error.status !== 412) throw error;
    const now = await read();
    await learn([now.account_id].filter(Boolean));
    const what = differing(row, now)
      .map(([name, label, shown]) => `the ${label.toLowerCase()} is now ${quoted(now[name], shown(now[name]))}`)
      .join(", and ");
    Object.assign(row, now);
    const happened = `Somebody else has changed this meanwhile${what && `: ${what}`}.`;
    throw new Problem(412, { detail: `${happened} Cancel to keep that, or save once more to have yours.` });
  }
}
