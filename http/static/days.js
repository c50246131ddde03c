// Days and moments, as the reader's language writes them.

const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const months = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", timeZone: "UTC" });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const written = (format, date, text) => (Number.isNaN(date.valueOf()) ? text : format.format(date));

/** "Jan 6, 2026" for "2026-01-06". */
export const day = (text) => written(days, new Date(`${text}T00:00:00Z`), text);

/** "Jan 2026" for "2026-01". */
export const month = (text) => written(months, new Date(`${text}-01T00:00:00Z`), text);

/** A time in RFC 3339, where the reader is. */
export const moment = (text) => written(moments, new Date(text), text);

/** Today where the reader is, as YYYY-MM-DD. */
export function today() {
  const now = new Date();
  return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}

/** The months from one to another, both included, as YYYY-MM; at most the last `most`. */
export function monthsBetween(first, last, most) {
  const number = (text) => Number(text.slice(0, 4)) * 12 + Number(text.slice(5, 7)) - 1;
  const end = number(last);
  const from = Math.max(number(first), end - most + 1);
  return Array.from({ length: end - from + 1 }, (_, i) => {
    const each = from + i;
    return `${String(Math.floor(each / 12)).padStart(4, "0")}-${String((each % 12) + 1).padStart(2, "0")}`;
  });
}
