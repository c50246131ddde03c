// Times and durations, as people say them.

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A time in RFC 3339 as the reader's language writes it; what is none as it is. */
export function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text || "unknown" : moment.format(date);
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
