// Revenue by month: what came in when, and which months are looked at. A month is counted from the year 0 on.

const SHORTEST = { month: 1, quarter: 3, year: 12 };

export const parseMonth = (text) => {
  const found = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(text);
  return found ? Number(found[1]) * 12 + Number(found[2]) - 1 : null;
};

export const writeMonth = (month) =>
  `${String(Math.floor(month / 12)).padStart(4, "0")}-${String((month % 12) + 1).padStart(2, "0")}`;

export const thisMonth = () => {
  const now = new Date();
  return now.getFullYear() * 12 + now.getMonth();
};

/** What `GET revenue?by=month` answered. */
export class Revenue {
  #cents = new Map();
  rest = 0n; // of no known month
  first = null;
  last = null;

  constructor(periods) {
    for (const { month, revenue_cents } of periods) {
      const number = month && parseMonth(month);
      if (number === null) this.rest += BigInt(revenue_cents);
      else this.#cents.set(number, BigInt(revenue_cents));
    }
    const months = [...this.#cents.keys()];
    if (months.length) [this.first, this.last] = [months[0], months.at(-1)];
  }

  /** What came in from one month to another, both included. */
  sum({ first, last }) {
    let sum = 0n;
    for (let month = Math.max(first, this.first); month <= Math.min(last, this.last); month += 1) {
      sum += this.#cents.get(month) ?? 0n;
    }
    return sum;
  }

  /** What a chart shows: periods of a month, a quarter or a year, with the year before where there was one. */
  bars({ first, last }) {
    const months = last - first + 1;
    const by = months <= 36 ? "month" : months <= 144 ? "quarter" : "year";
    const length = SHORTEST[by];
    const bars = [];
    for (let start = first - (first % length); start <= last; start += length) {
      const period = { first: Math.max(start, first), last: Math.min(start + length - 1, last) };
      const before = yearBefore(period);
      bars.push({
        by,
        start,
        name: nameOf(by, start),
        cents: this.sum(period),
        before: this.first !== null && before.first >= this.first ? this.sum(before) : null,
        open: start <= thisMonth() && thisMonth() < start + length,
      });
    }
    return bars;
  }
}

const yearBefore = ({ first, last }) => ({ first: first - 12, last: last - 12 });
const lengthBefore = ({ first, last }) => ({ first: first - (last - first + 1), last: first - 1 });

// --- names -----------------------------------------------------------------------------------

const dateOf = (month) => {
  const date = new Date(0);
  date.setUTCFullYear(Math.floor(month / 12), month % 12, 1);
  return date;
};
const formatted = (options) => {
  const format = new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options });
  return (month) => format.format(dateOf(month));
};
const longMonth = formatted({ month: "long", year: "numeric" });
export const shortMonth = formatted({ month: "short", year: "numeric" });
export const bareMonth = formatted({ month: "short" });

function nameOf(by, start) {
  const year = String(Math.floor(start / 12));
  return { month: longMonth(start), quarter: `Q${(start % 12) / 3 + 1} ${year}`, year }[by];
}

export const nameOfSpan = ({ first, last }) =>
  first === last ? shortMonth(first) : `${shortMonth(first)} to ${shortMonth(last)}`;

// --- periods to choose -----------------------------------------------------------------------

export const PERIODS = [
  ["12", "12 months"], ["year", "This year"], ["last-year", "Last year"], ["24", "24 months"], ["all", "All"],
];

/** "1997-01..1998-06" as a span; null for anything else. */
function parseSpan(text) {
  const [first, last] = (text ?? "").split("..").map(parseMonth);
  return first != null && last != null && first <= last ? { first, last } : null;
}

/**
 * The months of a period, its name, and the months that it is compared with, if any. Without a period these are the
 * last twelve months, or all where nothing came in lately.
 */
export function spanOf(period, revenue) {
  const now = thisMonth();
  const january = now - (now % 12);
  const own = parseSpan(period);
  if (own) return { ...own, period, name: nameOfSpan(own), before: lengthBefore(own) };
  const known = PERIODS.some(([value]) => value === period);
  const chosen = known ? period : revenue.last !== null && revenue.last <= now - 12 ? "all" : "12";
  const span = {
    12: { first: now - 11, last: now, name: "last 12 months" },
    24: { first: now - 23, last: now, name: "last 24 months" },
    year: { first: january, last: now, name: "this year" },
    "last-year": { first: january - 12, last: january - 1, name: "last year" },
    all: { first: revenue.first ?? now - 11, last: revenue.last ?? now, name: "all time" },
  }[chosen];
  const before = { all: null, year: yearBefore(span) }[chosen];
  return { ...span, period: chosen, before: before === undefined ? lengthBefore(span) : before };
}
