"""The OpenAPI documents: they list every route, and the schemas match the code."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from support.routes import routes, served
from tally.events import MAX_ID, Id
from tally.http import calls
from tally.http.openapi import Call, document
from tally.http.values import Description, Name

CALLS = {"customers": calls.CUSTOMERS, "accounts": (*calls.ACCOUNTS, calls.SIGN_IN)}

# These may change together with the pages. They are no interface for programs.
PAGES = {"customers": calls.CUSTOMERS_PAGE, "accounts": calls.ACCOUNTS_PAGE}
OF_THE_PAGES = {"/", "/docs", "/static/{name}", *(path for page in PAGES.values() for _, path in page)}
OPERATIONS = "/operations"  # its page, and the page's calls


@pytest.mark.parametrize("service", CALLS)
def test_every_route_is_in_the_document_and_nothing_else(service: str, tmp_path: Path) -> None:
    found = {
        (method, re.sub(":[a-z]+}", "}", path))
        for method, path in routes(served(service, tmp_path))
        if path not in OF_THE_PAGES and not path.startswith(OPERATIONS)
    }
    found.discard(("OPTIONS", "/auth/login"))  # a browser's preflight request
    assert found == {(call.method, call.path) for call in CALLS[service]}


@pytest.mark.parametrize("service", PAGES)
def test_every_call_of_a_page_is_a_route(service: str, tmp_path: Path) -> None:
    assert PAGES[service].keys() <= routes(served(service, tmp_path))


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("bearer", [False, True], ids=["open", "with tokens"])
def test_the_document_is_valid(service: str, bearer: bool) -> None:
    OpenAPIV31SpecValidator(document(service, CALLS[service], bearer)).validate()


def test_with_tokens_every_call_that_is_not_public_wants_one() -> None:
    made = document("customers", calls.CUSTOMERS, bearer=True)
    assert made["security"] == [{"bearer": []}]
    assert "bearer" in made["components"]["securitySchemes"]
    for call in calls.CUSTOMERS:
        operation = made["paths"][call.path][call.method.lower()]
        assert ("401" in operation["responses"]) is not call.public
        assert operation.get("security", made["security"]) == ([] if call.public else [{"bearer": []}])


@pytest.mark.parametrize("service", CALLS)
def test_every_refusal_for_a_while_tells_when_to_try_again(service: str) -> None:
    paths = document(service, CALLS[service])["paths"].values()
    answers = [each["responses"] for path in paths for each in path.values()]
    refusals = [told for each in answers for status, told in each.items() if status in ("429", "503")]
    assert all("Retry-After" in told.get("headers", {}) for told in refusals)


def test_a_path_names_what_its_parameters_describe() -> None:
    with pytest.raises(AssertionError):
        document("wrong", [Call(id="x", method="GET", path="/{id}", does="Nothing")])


# Patterns: they accept exactly the same as the code


def _takes(kind: Any, text: str) -> bool:
    try:
        kind.parse(text)
    except ValueError:
        return False
    return True


def _allows(kind: Any, text: str) -> bool:
    """Matches as in ECMA-262, where $ is only the very end."""
    schema = kind.json_schema()
    pattern = schema["pattern"]
    assert (pattern[0], pattern[-1]) == ("^", "$")
    others = [each["pattern"] for each in schema.get("allOf", [])]
    if "not" in schema and re.search(schema["not"]["pattern"], text):
        return False
    return all([re.fullmatch(pattern[1:-1], text), *(re.search(other, text) for other in others)])


@given(st.integers(0, 2**66).map(str) | st.text("0123456789", max_size=21) | st.text(max_size=3))
@example("0")
@example("00")
@example("01")
@example("1\n")
@example(str(MAX_ID))
@example(str(MAX_ID + 1))
@example(str(10**18 - 1))
@example(str(10**18))
def test_the_pattern_of_ids_takes_what_is_an_id(text: str) -> None:
    assert _allows(Id, text) is _takes(Id, text)


def test_the_pattern_of_ids_is_right_about_each_digit_of_the_highest() -> None:
    digits = str(MAX_ID)
    for place in range(len(digits)):
        for digit in "0123456789":
            text = digits[:place] + digit + digits[place + 1 :]
            assert _allows(Id, text) is _takes(Id, text), text


_edges = st.text(" \t\n\x1c\x85\xa0\u2003\u200b", max_size=3)
_insides = (
    st.text(max_size=5) | st.integers(195, 205).map("é".__mul__) | st.integers(1995, 2005).map("😀".__mul__)
)


@pytest.mark.parametrize("kind", [Name, Description])
@given(st.tuples(_edges, _insides, _edges).map("".join))
def test_the_pattern_of_a_line_takes_what_is_one(kind: Any, text: str) -> None:
    assert _allows(kind, text) is _takes(kind, text)


@pytest.mark.parametrize("kind", [Name, Description])
def test_the_pattern_of_a_line_knows_every_blank_and_every_control_character(kind: Any) -> None:
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x21000), *range(0xE0000, 0xE1001), 0x10FFFF]):
        everywhere = f"{character}a{character}b{character}"
        if _allows(kind, everywhere) and _takes(kind, everywhere):
            continue  # so it may stand at each place alone
        for text in (character, f"a{character}b", f"{character}a", f"a{character}"):
            assert _allows(kind, text) is _takes(kind, text), ascii(text)
