"""Cells of CSV files as SQLite writes them (RFC 4180): a fraction of the price of Python's own.

No spreadsheet takes a text for a formula: one that begins like it gets an apostrophe before it, as `import`
understands it.
"""


def text(value: str) -> str:
    """A text in quotes; `value` is an expression in SQL that is never NULL."""
    bare = f"ltrim({value}, '''')"
    number = f"(substr({value}, 2) GLOB '[0-9]*' AND substr({value}, 2) NOT GLOB '*[^0-9.]*'" + (
        f" AND {value} NOT GLOB '*.*.*' AND {value} GLOB '[-+]*')"
    )
    formula = f"({bare} GLOB '[-=+@\t]*' AND NOT {number})"
    return f"'\"' || iif({formula}, '''', '') || replace({value}, '\"', '\"\"') || '\"'"


def optional_text(value: str) -> str:
    """A text in quotes, or nothing where it is NULL."""
    return f"coalesce({text(value)}, '')"


def amount(cents: str, sign: str = "") -> str:
    """Decimal currency, of an expression that is no negative number."""
    return f"'{sign}' || ({cents} / 100) || '.' || substr('0' || ({cents} % 100), -2)"


def line(*cells: str) -> str:
    """The line that has these cells."""
    return " || ',' || ".join(cells) + " || char(13, 10)"
