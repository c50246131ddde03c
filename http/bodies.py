"""Bodies: read from JSON straight into our types, and refused with every fault at once.

msgspec reads a good body once. A body that it refuses is read again, field by field, to name every fault.
So is a body in which a name may stand twice: msgspec would keep the last value and say nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sized
from datetime import date
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from tally.http.problems import FieldError, MalformedBody, WrongFields

S = TypeVar("S", bound=msgspec.Struct)

MOST_IN_BATCH = 10_000

MOST_TOLD = 100  # faults of a body: with more, it is likely the same fault everywhere
_MOST_DIGITS = 20  # of an integer that is read exactly
_BEYOND = 10**20  # a longer one is read as this: no field takes so much


def decode(body: bytes, kind: type[S]) -> S:
    """Read one object. Raises MalformedBody, or WrongFields with every fault."""
    (found,) = _decode(body, kind, is_batch=False)
    return found


def decode_change(body: bytes, kind: type[S]) -> S:
    """Read one object that has at least one of the fields. Raises like `decode`."""
    change = decode(body, kind)
    names = change.__struct_fields__
    if all(getattr(change, name) is UNSET for name in names):
        raise WrongFields([FieldError("", f"Expected at least one of {', '.join(names)}")])
    return change


def decode_batch(body: bytes, kind: type[S]) -> list[S]:
    """Read an array of up to MOST_IN_BATCH objects. Raises like `decode`, fields named with their index."""
    return _decode(body, kind, is_batch=True)


def _decode(body: bytes, kind: type[S], is_batch: bool) -> list[S]:
    try:  # all of it: msgspec checks only the strings that it takes
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8, at byte {error.start}.") from None
    whole: Any = list[kind] if is_batch else kind  # type: ignore[valid-type]
    try:
        decoded = msgspec.json.decode(body, type=whole, dec_hook=_parse)
        found: list[S] = decoded if is_batch else [decoded]
        _insist_on_size(found)
        if _names_nothing_twice(body, kind, found):
            return found
    except (ValueError, RecursionError):
        pass
    raw, twice = _read(text)
    if not isinstance(raw, list if is_batch else dict):
        expected = "array of objects" if is_batch else "object"
        raise MalformedBody(f"Expected a JSON {expected}, got `{json_type(raw)}`.")
    if is_batch:
        _insist_on_size(raw)
    items: dict[str, Any] = {f"[{index}]": item for index, item in enumerate(raw)} if is_batch else {"": raw}
    _insist_on_no_faults(twice, (each for place in items for each in _faults(items[place], kind, place)))
    names = kind.__struct_fields__  # of no others: msgspec fails at half of a character in a name
    known = [{name: item[name] for name in names if name in item} for item in items.values()]
    return msgspec.convert(known, list[kind], dec_hook=_parse)  # type: ignore[valid-type]


def json_type(raw: object) -> str:
    """JSON's name for the type of a value."""
    names = {dict: "object", list: "array", type(None): "null"}
    return names.get(type(raw), type(raw).__name__)


def _names_nothing_twice(body: bytes, kind: type[Any], found: list[Any]) -> bool:
    """Whether the objects surely have no name twice. Cheap; False when in doubt.

    A colon follows each name in an object. So with no more colons than found fields, there are no other
    names.
    """
    required, optional = _fields(kind)  # type: ignore[arg-type]  # a class is hashable
    given = sum(getattr(each, name) is not UNSET for name in optional for each in found)
    return body.count(b":") == required * len(found) + given


@cache
def _fields(kind: type[Any]) -> tuple[int, list[str]]:
    """The number of required fields, and the optional ones. Cached: it takes longer than reading a body."""
    fields = msgspec.structs.fields(kind)
    return sum(each.required for each in fields), [each.name for each in fields if each.default is UNSET]


def _insist_on_size(batch: Sized) -> None:
    if len(batch) > MOST_IN_BATCH:
        raise WrongFields([FieldError("", f"Expected at most {MOST_IN_BATCH} items, got {len(batch)}")])


def _insist_on_no_faults(twice: list[str], others: Iterator[FieldError]) -> None:
    """Raises WrongFields. A field that is given twice has no other fault reported."""
    faults = [FieldError(name, "Given twice") for name in twice]
    known = set(twice)
    faults += islice((fault for fault in others if fault.field not in known), MOST_TOLD + 1)
    if len(faults) > MOST_TOLD:
        faults = [*faults[:MOST_TOLD], FieldError("", f"And more: these are the first {MOST_TOLD}")]
    if faults:
        raise WrongFields(faults)


def _parse(kind: type[Any], raw: object) -> Any:
    return kind.parse(raw)


# Reading again


class _Doubled(dict[str, Any]):
    """An object with some names given twice."""

    twice: list[str]


def _read(text: str) -> tuple[Any, list[str]]:
    """The content of the text, and the places where a name is given twice. Raises MalformedBody."""
    doubled: list[_Doubled] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        doubled.append(_Doubled(found))
        doubled[-1].twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        return doubled[-1]

    decoder = json.JSONDecoder(object_pairs_hook=made, parse_int=_int, parse_constant=_refuse_constant)
    try:
        raw = decoder.decode(text)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except ValueError as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None
    return raw, list(_doubled_names(raw, len(doubled))) if doubled else []


def _int(digits: str) -> int:
    """The integer, or another that is out of range too: Python refuses to read thousands of digits."""
    if len(digits) <= _MOST_DIGITS:
        return int(digits)
    return -_BEYOND if digits[0] == "-" else _BEYOND


def _refuse_constant(name: str) -> None:
    raise ValueError(f"there is no {name} in it")


def _doubled_names(raw: Any, objects: int) -> Iterator[str]:
    """The places in `raw` of names given twice, in `objects` objects; only the first places."""
    told = 0
    left = [("", raw)]
    while left and objects and told < MOST_TOLD:
        place, value = left.pop()
        if isinstance(value, dict):
            before = place and place + "."
            if isinstance(value, _Doubled):
                objects -= 1
                told += len(value.twice)
                yield from (before + _shown(name) for name in value.twice[:MOST_TOLD])
            left += [(before + _shown(name), inner) for name, inner in reversed(value.items())]
        elif isinstance(value, list):
            left += [(f"{place}[{index}]", inner) for index, inner in reversed([*enumerate(value)])]


def _shown(name: str) -> str:
    """A name as an answer can hold it."""
    return name[:100].encode(errors="replace").decode()


def _faults(raw: Any, kind: type[Any], place: str) -> Iterator[FieldError]:
    """The faults of what should be an object; `place` is where it stands in a batch."""
    if not isinstance(raw, dict):
        yield FieldError(place, f"Expected `object`, got `{json_type(raw)}`")
        return
    before = place and place + "."
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in raw:
            if field.required:
                yield FieldError(before + field.encode_name, "Required")
            continue
        try:
            msgspec.convert(raw[field.encode_name], field.type, dec_hook=_parse)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter for half of a character
            message = "Expected a date, YYYY-MM-DD" if field.type is date else str(error)
            yield FieldError(before + field.encode_name, message)
