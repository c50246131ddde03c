// What accounts are called, as the accounts service says; their ids where it doesn't.

import { get } from "./api.js";

const FRESH_MS = 30_000;

const known = new Map(); // name by id
const asked = new Map(); // when, by id

export const accountName = (id) => known.get(id) ?? `Account ${id}`;

/** Ask for the names of these accounts that were not asked for lately. Answers whether there is something new. */
export async function learn(ids) {
  const now = Date.now();
  const wanted = [...new Set(ids)].filter((id) => !(now - asked.get(id) < FRESH_MS));
  if (!wanted.length) return false;
  for (const id of wanted) asked.set(id, now);
  try {
    const { accounts } = await get(`accounts/names?${new URLSearchParams({ ids: wanted })}`, "accounts");
    for (const { id, name } of accounts) known.set(id, name);
    return accounts.length > 0;
  } catch {
    return false;
  }
}

/** Accounts whose name holds the text, or whose id it is. Throws Problem or Unreachable. */
export async function suggest(text) {
  const { accounts } = await get(`accounts/names?${new URLSearchParams({ search: text })}`, "accounts");
  for (const { id, name } of accounts) known.set(id, name);
  return accounts;
}
