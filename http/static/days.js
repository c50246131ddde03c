// Days, moments and durations, as the reader's language writes them.

const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });
const daysHere = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const written = (format, date, text) => (Number.isNaN(date.valueOf()) ? text : format.format(date));

/** "Jan 6, 2026" for "2026-01-06". */
export const day = (text) => written(days, new Date(`${text}T00:00:00Z`), text);

/** The day of a time in RFC 3339, where the reader is. */
export const dayOf = (text) => written(daysHere, new Date(text), text);

/** A time in RFC 3339, where the reader is; what is none as it is. */
export const moment = (text) => written(moments, new Date(text), text || "unknown");

/** Today where the reader is, as YYYY-MM-DD. */
export function today() {
  const now = new Date();
  return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}

/** "40 s", "5 min", "2 h 5 min", "3 days". */
export function lasting(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  const days = Math.floor(hours / 24);
  return days === 1 ? "1 day" : `${days} days`;
}
