"""Shared parts of the pages' queries of both databases."""

from decimal import Decimal


class Cents(int):
    """A sum in cents; a string on the wire, since it may be beyond what a JavaScript number holds."""


def money(cents: int) -> str:
    """Cents as an amount for people, such as -1,234.05."""
    return f"{Decimal(cents) / 100:,.2f}"


def contains(column: str, text: str) -> tuple[str, list[str]]:
    """An SQL condition and its bindings: the column contains the text, ignoring case.

    SQLite folds only the case of ASCII, so the text is searched in each of its cases.
    """
    cases = {_lower_ascii(case) for case in (text, text.lower(), text.upper(), text.title())}
    return f"({' OR '.join([f'instr(lower({column}), ?)'] * len(cases))})", sorted(cases)


def _lower_ascii(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)
