// Amounts are whole cents, as BigInt: sums go beyond what a number holds exactly.

import { meta } from "./dom.js";

const whole = new Intl.NumberFormat();
const pair = new Intl.NumberFormat(undefined, { minimumIntegerDigits: 2 });
const decimal = new Intl.NumberFormat().formatToParts(1.5).find((part) => part.type === "decimal").value;
const percents = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

const MOST_CENTS = 1_000_000_000_000n;

/** What amounts are in, as it is set for the pages; "" where nothing is. */
const currency = meta("currency");

/** "1,234.50" for the string "123450", as the reader's language writes it. */
export function money(cents) {
  const amount = BigInt(cents);
  const size = amount < 0n ? -amount : amount;
  const sign = amount < 0n ? "\u2212" : "";
  return `${sign}${whole.format(size / 100n)}${decimal}${pair.format(size % 100n)}`;
}

/** The same as one types it, and as `parseMoney` reads it: no thousands separators. */
export const typed = (cents) => {
  const amount = BigInt(cents);
  return `${amount / 100n}${decimal === "," ? "," : "."}${String(amount % 100n).padStart(2, "0")}`;
};

/** The same with its currency, where it stands alone: "EUR 1,234.50". */
export const headline = (cents) => (currency ? `${currency}\u00a0${money(cents)}` : money(cents));

/** The head of a column of amounts: "Revenue (EUR)"; such heads in the page are written at once. */
export const headOf = (name) => (currency ? `${name} (${currency})` : name);

/** A difference: "+1,234.50". */
export const signed = (cents) => (cents > 0n ? `+${money(cents)}` : money(cents));

/** A part of a whole: "12.3%"; "–" of nothing. */
export const share = (part, all) =>
  BigInt(all) > 0n ? percents.format(Number((BigInt(part) * 10_000n) / BigInt(all)) / 10_000) : "–";

/** By how much it has become more or less: "+12.3%"; "" where there was nothing before. */
export function growth(now, before) {
  if (before <= 0n) return "";
  const part = Number(((now - before) * 10_000n) / before) / 10_000;
  return `${part > 0 ? "+" : part < 0 ? "\u2212" : ""}${percents.format(Math.abs(part))}`;
}

/** An amount as an axis has it: "12.5K". */
export const rough = (cents) => compact.format(cents / 100);

/** A number of things, with thousands separated. */
export const count = (number) => whole.format(number);

/** The cents of an amount as people write it: 29.33 or 29,33. Throws an Error that says what is wrong. */
export function parseMoney(text) {
  const written = text.trim();
  if (!written) throw new Error("Enter the amount.");
  if (/^[-\u2212(]/.test(written)) throw new Error("An amount can't be negative. To take an invoice back, delete it.");
  if (/^\d+[.,]\d{4,}$/.test(written)) throw new Error("Write at most two decimals, like 29.33.");
  const parts = /^(\d{1,15})(?:[.,](\d{1,2}))?$/.exec(written);
  if (!parts) throw new Error("Write digits only, like 29.33 or 29,33: no currency, no thousands separators.");
  const cents = BigInt(parts[1]) * 100n + BigInt((parts[2] ?? "").padEnd(2, "0"));
  if (cents > MOST_CENTS) throw new Error(`At most ${money(MOST_CENTS)} can be recorded in one invoice.`);
  return Number(cents); // exact: below 2^53
}

for (const head of document.querySelectorAll("[data-head]")) head.textContent = headOf(head.dataset.head);
