"""Reading a body: a name that is given twice is found at any depth, and nothing else is reported as one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tally.http.bodies import decode, decode_batch
from tally.http.problems import WrongFields
from tally.http.values import AccountBody, CustomerBody

Pairs = list[tuple[str, Any]]

_names = st.sampled_from(["name", "account_id", "x", "", ":", '":', "a:b", "\\", "é"])
_leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from([":", '"x":', '":'])
)


def _objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(_names, values), max_size=4).map(tuple)


_values = st.recursive(_leaves, lambda inner: st.lists(inner, max_size=3) | _objects(inner), max_leaves=8)
_GOOD: Pairs = [("name", "Ada"), ("account_id", "1"), ("owned_by", "user1")]


def _text(value: Any) -> str:
    """The value as JSON. A tuple becomes an object, which may hold a name more than once."""
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(name)}: {_text(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value)


def _is_twofold(value: Any) -> bool:
    """Whether any object inside the value has a name twice."""
    if isinstance(value, tuple):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(_is_twofold(inner) for _, inner in value)
    return isinstance(value, list) and any(map(_is_twofold, value))


def _taken(body: str, kind: type[Any], in_batch: bool) -> bool:
    try:
        if in_batch:
            decode_batch(f"[{body}, {body}]".encode(), kind)
        else:
            decode(body.encode(), kind)
    except WrongFields as refusal:
        return {fault.message for fault in refusal.faults} != {"Given twice"}
    return True


@pytest.mark.parametrize("kind", [CustomerBody, AccountBody])
@pytest.mark.parametrize("in_batch", [False, True], ids=["single", "batch"])
@given(st.lists(st.tuples(st.sampled_from(["x", "y", "", "a:b"]), _values), max_size=3), st.booleans())
def test_a_body_is_taken_if_nothing_in_it_is_named_twice(
    kind: type[Any], in_batch: bool, more: Pairs, again: bool
) -> None:
    fields = (*_GOOD, *more, *(_GOOD[:1] if again else []))
    assert _taken(_text(fields), kind, in_batch) is not _is_twofold(fields)


@given(st.sampled_from([":", "a: b", '":', '\\":"x":1', "::::"]))
def test_colons_in_a_text_are_none_of_a_name(name: str) -> None:
    assert decode(json.dumps({"name": name, "account_id": "1"}).encode(), CustomerBody).name == name
