"""Cells of CSV files, written by SQLite (RFC 4180): much cheaper than in Python.

A text that begins like a formula gets an apostrophe before it, so that no spreadsheet runs it. `import`
understands that.
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
    """A text in quotes, or nothing if it is NULL."""
    return f"coalesce({text(value)}, '')"


def amount(cents: str, sign: str = "") -> str:
    """Decimal currency; the expression must not be negative."""
    return f"'{sign}' || ({cents} / 100) || '.' || substr('0' || ({cents} % 100), -2)"


def line(*cells: str) -> str:
    """The line with these cells."""
    return " || ',' || ".join(cells) + " || char(13, 10)"
