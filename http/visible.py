"""Which characters can be seen: a name of others looks like none, or like another name."""

from functools import lru_cache
from itertools import groupby
from unicodedata import category

# Controls, formats (joiners, tags, marks of direction), blanks, and marks that need a letter to sit on.
_UNSEEN = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Mc", "Me"))
_TAGS = range(0xE0000, 0xE1000)
_BLANK = frozenset(
    (
        *(0x115F, 0x1160, 0x3164, 0xFFA0),  # Hangul fillers
        *(0x2800, 0x1D159),  # an empty Braille cell, a null notehead
        *(0x2065, *range(0xFFF0, 0xFFF9), *_TAGS),  # not given to anything yet, but never to be shown
    )
)
_PLANES = (range(0x20000), _TAGS)  # all others hold ideographs and private characters


def is_visible(character: str) -> bool:
    """Whether the character shows something by itself."""
    return not _is_unseen(ord(character))


@lru_cache(maxsize=1)
def invisible() -> str:
    """All characters that are not visible, as what stands within the brackets of a pattern."""
    codes = [code for plane in _PLANES for code in plane if _is_unseen(code)]
    runs = groupby(enumerate(codes), lambda each: each[1] - each[0])
    return "".join(map(_range, ([code for _, code in run] for _, run in runs)))


def _is_unseen(code: int) -> bool:
    return category(chr(code)) in _UNSEEN or code in _BLANK


def _range(codes: list[int]) -> str:
    first, last = _written(codes[0]), _written(codes[-1])
    return first if len(codes) == 1 else f"{first}-{last}"


def _written(code: int) -> str:
    """In JSON Schema's patterns there is an escape for the first 65,536 only."""
    return f"\\u{code:04x}" if code < 0x10000 else chr(code)
