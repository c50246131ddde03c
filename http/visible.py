"""Characters that can't be seen: a name made of them looks empty, or like another name.

Marks of direction and characters without width can make a text look like another one (Unicode TR 36). Some
scripts need them between letters; ideographs and emoji need them behind. `printable` makes text safe for a
terminal.
"""

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
        *(0x2065, *range(0xFFF0, 0xFFF9), *_TAGS),  # not assigned yet, but never shown
    )
)
_PLANES = (range(0x20000), _TAGS)  # all other planes hold ideographs and private characters

# Never shown anywhere: Unicode's Default_Ignorable_Code_Point without the ones below, and annotations.
_IGNORED = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e00ff\U000e01f0-\U000e0fff"
)
_JOINERS, _SELECTORS, _OF_FLAGS = r"\u200c\u200d", r"\ufe00-\ufe0f", "\U000e0020-\U000e007f"
_EMOJI = r"\u00a9\u00ae\u203c-\u2bff\u3030\u303d\u3297\u3299" "\U0001f000-\U0001faff"
_IDEOGRAPHS = r"\u3400-\u9fff\uf900-\ufaff" "\U00020000-\U0003ffff"
_OF_IDEOGRAPHS = "\U000e0100-\U000e01ef"
_JOINED = r"\u0600-\u0dff\u1000-\u109f\u1780-\u18aa\ua840-\uabff" + _EMOJI  # Arabic, Hindi and so on

DISGUISING = "|".join(
    (
        f"[{_IGNORED}]",
        f"(?<![{_JOINED}{_SELECTORS}])[{_JOINERS}]",
        f"[{_JOINERS}](?![{_JOINED}])",
        f"(?<![{_JOINED}{_IDEOGRAPHS}])[{_SELECTORS}](?!\\u20e3)",
        f"(?<![{_IDEOGRAPHS}])[{_OF_IDEOGRAPHS}]",
        f"(?<![\U0001f3f4{_OF_FLAGS}])[{_OF_FLAGS}]",
    )
)
"""The pattern, of Python and of JSON Schema, of what would make a text look like another one."""


def is_visible(character: str) -> bool:
    """Whether the character is visible by itself."""
    return category(character) not in _UNSEEN and ord(character) not in _BLANK


@lru_cache(maxsize=1)
def invisible() -> str:
    """All characters that are not visible, as the content of a pattern's brackets."""
    codes = [code for plane in _PLANES for code in plane if not is_visible(chr(code))]
    runs = groupby(enumerate(codes), lambda each: each[1] - each[0])
    return "".join(map(_range, ([code for _, code in run] for _, run in runs)))


def printable(text: str) -> str:
    """The text on one line, with everything escaped that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _range(codes: list[int]) -> str:
    first, last = _written(codes[0]), _written(codes[-1])
    return first if len(codes) == 1 else f"{first}-{last}"


def _written(code: int) -> str:
    """The character for a pattern. JSON Schema's patterns have an escape only for the first 65,536."""
    return f"\\u{code:04x}" if code < 0x10000 else chr(code)
