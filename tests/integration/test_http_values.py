"""The values that a field accepts and refuses: each rule of the contract's "Values", at both of its edges."""

import json
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from integration.conftest import Watch, invoice, new_account, new_customer, new_invoice, problem

from support.tally import Client, Tally
from support.waiting import eventually

MOST_CENTS = 10**12
HIGHEST_ID = str(2**63 - 1)


@pytest.fixture(scope="module")
def customer_id(customers: Client) -> str:
    """A customer that is never deleted."""
    return new_customer(customers)


def _service(tally: Tally, path: str) -> Client:
    return tally.accounts if path.startswith("/accounts") else tally.customers


def _good(path: str, customer_id: str) -> dict[str, str]:
    """The fields of a body that is accepted at `path`, each as JSON text."""
    fields: dict[str, dict[str, Any]] = {
        "/customers": {"name": "Ada", "account_id": "1"},
        "/invoices": invoice(customer_id),
        "/accounts": {"name": "one", "owned_by": "user1", "description": "the first"},
    }
    return {name: json.dumps(value) for name, value in fields[path].items()}


def _object(fields: dict[str, str]) -> str:
    """A JSON object made of fields in JSON text. It can hold what json.dumps can't write."""
    return "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"


# Refused values

NO_STRING = {
    "null": "null",
    "a number": "7",
    "a number beyond all bounds": "-1e400",
    "5,000 digits": "9" * 5000,
    "true": "true",
    "an array": '["Ada"]',
    "an object": '{"a": "Ada"}',
}

NO_LINE = NO_STRING | {
    "nested 500 deep": "[" * 500 + "]" * 500,
    "empty": '""',
    "a blank": '" "',
    "blanks only": '"  \\t \\n  "',
    "Unicode blanks only": '"\\u2003\\u00a0\\u3000"',
    "201 characters": json.dumps("a" * 201),
    "201 characters, blanks about them": json.dumps(f" {'a' * 201} "),
    "201 characters beyond the BMP": json.dumps("😀" * 201),
    "201 with a blank inside": json.dumps("a" * 100 + " " + "b" * 100),
    "10,000 characters": json.dumps("a" * 10_000),
    "NUL alone": '"\\u0000"',
    "NUL inside": '"Ada\\u0000Lovelace"',
    "NUL at the end": '"Ada\\u0000"',
    "a line feed inside": '"Ada\\nLovelace"',
    "a carriage return inside": '"Ada\\rLovelace"',
    "a tab inside": '"Ada\\tLovelace"',
    "BEL": '"Ada\\u0007"',
    "ESC": '"\\u001b[31mAda"',
    "the last of C0": '"A\\u001fda"',
    "DEL": '"Ada\\u007f"',
    "the first of C1": '"Ada\\u0080"',
    "NEL inside": '"A\\u0085da"',
    "CSI": '"\\u009b31mAda"',
    "the last of C1": '"Ada\\u009f"',
    "a zero width space": '"\\u200b"',
    "zero width spaces, blanks about them": '" \\u200b\\u200b "',
    "a word joiner": '"\\u2060"',
    "a byte order mark": '"\\ufeff"',
    "a soft hyphen": '"\\u00ad"',
    "a zero width joiner": '"\\u200d"',
    "a right-to-left mark": '"\\u200f\\u202e"',
    "a Hangul filler": '"\\u3164"',
    "a Hangul choseong filler": '"\\u115f\\u1160"',
    "a halfwidth Hangul filler": '"\\uffa0"',
    "an empty Braille pattern": '"\\u2800"',
    "a variation selector": '"\\ufe0f"',
    "a variation selector beyond the BMP": '"\\udb40\\udd00"',
    "a Mongolian variation selector": '"\\u180b"',
    "tags": '"\\udb40\\udc61\\udb40\\udc7f"',
    "a combining grapheme joiner": '"\\u034f"',
    "a combining accent": '"\\u0301"',
    "a combining circle": '"\\u20dd"',
    "a vowel sign": '"\\u093e"',
    "a null notehead": '"\\ud834\\udd59"',
    "a zero width space before a letter": '"\\u200ba"',
    "a zero width joiner between Latin letters": '"A\\u200dda"',
    "a zero width non-joiner at the end": '"\\u0646\\u0627\\u200c"',
    "joiners one behind the other": '"\\u0646\\u200c\\u200c\\u0627"',
    "a selector of variants behind a Latin letter": '"Ada\\ufe0f"',
    "an override of the direction": '"\\u202eada\\u202c"',
    "an isolate": '"ada\\u2067"',
    "a mark of direction": '"ada\\u200e"',
    "a soft hyphen between letters": '"a\\u00adda"',
    "a word joiner between letters": '"a\\u2060da"',
    "a byte order mark before a letter": '"\\ufeffada"',
    "tags without a flag": '"ada\\udb40\\udc61"',
    "an annotation": '"a\\ufff9b\\ufffbc"',
    "many of them": '"\\u200b \\u3164\\u00a0\\u2060\\ufe0f \\u0301"',
}

NO_DESCRIPTION = NO_STRING | {
    "2,001 characters": json.dumps("a" * 2001),
    "2,001 characters beyond the BMP": json.dumps("😀" * 2001),
    "NUL": '"the\\u0000first"',
}

NO_ID = NO_STRING | {
    "empty": '""',
    "a leading zero": '"01"',
    "zeros": '"00"',
    "many leading zeros": json.dumps("0" * 30 + "1"),
    "negative": '"-1"',
    "minus zero": '"-0"',
    "a plus": '"+1"',
    "a blank before": '" 1"',
    "a blank behind": '"1 "',
    "a line feed behind": '"1\\n"',
    "NUL behind": '"1\\u0000"',
    "a fraction": '"1.0"',
    "an exponent": '"1e3"',
    "hexadecimal": '"0x1f"',
    "an underscore": '"1_000"',
    "a separator": '"1,000"',
    "letters": '"one"',
    "Arabic digits": '"\\u0661\\u0662"',
    "full-width digits": '"\\uff11"',
    "a superscript": '"\\u00b2"',
    "2^63": json.dumps(str(2**63)),
    "2^64": json.dumps(str(2**64)),
    "2^64 + 1": json.dumps(str(2**64 + 1)),
    "10,000 digits": json.dumps("9" * 10_000),
}

NO_CENTS = {
    "null": "null",
    "true": "true",
    "false": "false",
    "a string": '"100"',
    "an empty string": '""',
    "an array": "[100]",
    "an object": '{"cents": 100}',
    "1e3": "1e3",
    "1E0": "1E0",
    "10.0": "10.0",
    "0.5": "0.5",
    "a float too large for an integer": "1e300",
    "-1": "-1",
    "-1.0": "-1.0",
    "-10^12": str(-MOST_CENTS),
    "10^12 + 1": str(MOST_CENTS + 1),
    "2^53 + 1": str(2**53 + 1),
    "2^63 - 1": str(2**63 - 1),
    "2^63": str(2**63),
    "-2^63 - 1": str(-(2**63) - 1),
    "2^64": str(2**64),
    "2^64 + 1": str(2**64 + 1),
    "300 digits": "9" * 300,
    "5,000 digits": "9" * 5000,
    "minus 5,000 digits": "-" + "9" * 5000,
    "1.0": "1.0",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "1E+4000": "1E+4000",
    "a float too small for anything": "1e-400",
}

NO_DATE = NO_STRING | {
    "empty": '""',
    "a word": '"yesterday"',
    "a 30th of February": '"2019-02-30"',
    "a 29th of February in a common year": '"2019-02-29"',
    "a 29th of February in 1900": '"1900-02-29"',
    "a 31st of April": '"2019-04-31"',
    "a 13th month": '"2019-13-01"',
    "month 0": '"2019-00-10"',
    "day 0": '"2019-01-00"',
    "day 32": '"2019-01-32"',
    "year 0": '"0000-01-01"',
    "a year of five digits": '"10000-01-01"',
    "a year of two digits": '"19-01-06"',
    "a negative year": '"-2019-01-06"',
    "no leading zeros": '"2019-1-6"',
    "a date-time": '"2019-01-06T10:00:00Z"',
    "a date-time without zone": '"2019-01-06T10:00:00"',
    "a date-time with a blank": '"2019-01-06 10:00:00"',
    "midnight": '"2019-01-06T00:00:00Z"',
    "a date with a zone": '"2019-01-06Z"',
    "a blank before": '" 2019-01-06"',
    "a blank behind": '"2019-01-06 "',
    "a line feed behind": '"2019-01-06\\n"',
    "no hyphens": '"20190106"',
    "slashes": '"2019/01/06"',
    "German": '"06.01.2019"',
    "a week": '"2019-W01-1"',
    "a day of the year": '"2019-006"',
    "a month": '"2019-01"',
    "a timestamp": "1546732800",
    "Arabic digits": '"\\u0662\\u0660\\u0661\\u0669-01-06"',
    "a sign inside": '"2019-+1-06"',
}


def _cases(path: str, field: str, texts: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    return {f"{path[1:]} {field} {words}": (path, field, text) for words, text in texts.items()}


WRONG = (
    _cases("/customers", "name", NO_LINE)
    | _cases("/customers", "account_id", NO_ID)
    | _cases("/invoices", "customer_id", NO_ID)
    | _cases("/invoices", "purchase_date", NO_DATE)
    | _cases("/invoices", "purchase_price_cents", NO_CENTS)
    | _cases("/accounts", "name", NO_LINE)
    | _cases("/accounts", "owned_by", NO_LINE)
    | _cases("/accounts", "description", NO_DESCRIPTION)
)


@pytest.mark.parametrize(("path", "field", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    shared: Tally, watch: Watch, customer_id: str, path: str, field: str, text: str
) -> None:
    body = _object(_good(path, customer_id) | {field: text})
    with watch.nothing_changes():
        problem(_service(shared, path).request("POST", path, body=body.encode()), 422, field)


@pytest.mark.parametrize(
    ("path", "field", "texts"),
    [
        ("/customers", "name", NO_LINE),
        ("/customers", "account_id", NO_ID),
        ("/invoices", "customer_id", NO_ID),
        ("/invoices", "purchase_date", NO_DATE),
        ("/invoices", "purchase_price_cents", NO_CENTS),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.removeprefix("/"),
)
def test_every_wrong_value_of_a_batch_is_named_with_its_index(
    customers: Client, watch: Watch, customer_id: str, path: str, field: str, texts: dict[str, str]
) -> None:
    """Every other item is good, but none of them is recorded."""
    good = _good(path, customer_id)
    pairs = ((_object(good), _object(good | {field: text})) for text in texts.values())
    body = f"[{', '.join(chain.from_iterable(pairs))}]".encode()
    with watch.nothing_changes():
        response = customers.request("POST", f"{path}/batch", body=body)
        problem(response, 422, *(f"[{2 * number + 1}].{field}" for number in range(len(texts))))


REQUIRED = [
    ("/customers", "name"),
    ("/customers", "account_id"),
    ("/invoices", "customer_id"),
    ("/invoices", "purchase_date"),
    ("/invoices", "purchase_price_cents"),
    ("/accounts", "name"),
    ("/accounts", "owned_by"),
]


@pytest.mark.parametrize(("path", "field"), REQUIRED)
def test_a_missing_field_is_refused_by_its_name(
    shared: Tally, watch: Watch, customer_id: str, path: str, field: str
) -> None:
    fields = _good(path, customer_id)
    del fields[field]
    with watch.nothing_changes():
        response = _service(shared, path).request("POST", path, body=_object(fields).encode())
        problem(response, 422, field)


@pytest.mark.parametrize(("path", "field"), REQUIRED)
def test_a_field_in_another_case_is_another_field(
    shared: Tally, watch: Watch, customer_id: str, path: str, field: str
) -> None:
    fields = _good(path, customer_id)
    fields[field.upper()] = fields.pop(field)
    with watch.nothing_changes():
        response = _service(shared, path).request("POST", path, body=_object(fields).encode())
        problem(response, 422, field)


@pytest.mark.parametrize("path", ["/customers", "/invoices", "/accounts"])
def test_all_missing_fields_are_reported_at_once(shared: Tally, watch: Watch, path: str) -> None:
    with watch.nothing_changes():
        response = _service(shared, path).request("POST", path, {})
        problem(response, 422, *(field for at, field in REQUIRED if at == path))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/customers", {"name": "", "account_id": 1}),
        ("/invoices", {"customer_id": "x", "purchase_date": "2019-02-30", "purchase_price_cents": True}),
        ("/invoices", {"customer_id": "x", "purchase_date": "2019-02-30"}),
        ("/accounts", {"name": None, "owned_by": "a" * 201, "description": 5}),
    ],
    ids=["customers", "invoices", "invoices, one of them missing", "accounts"],
)
def test_all_wrong_fields_are_reported_at_once(
    shared: Tally, watch: Watch, path: str, content: dict[str, Any]
) -> None:
    expected = {*content, *(field for at, field in REQUIRED if at == path)}
    with watch.nothing_changes():
        problem(_service(shared, path).request("POST", path, content), 422, *expected)


def test_all_wrong_fields_of_a_batch_are_reported_at_once(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    good = invoice(customer_id)
    with watch.nothing_changes():
        response = customers.request(
            "POST",
            "/invoices/batch",
            [good, good | {"customer_id": 7, "purchase_date": "today"}, good, {}, "invoice", None, [good]],
        )
        problem(
            response,
            422,
            "[1].customer_id",
            "[1].purchase_date",
            "[3].customer_id",
            "[3].purchase_date",
            "[3].purchase_price_cents",
            "[4]",
            "[5]",
            "[6]",
        )


@pytest.mark.parametrize(
    ("path", "field"),
    [("/customers", "name"), ("/accounts", "name"), ("/accounts", "owned_by"), ("/accounts", "description")],
)
def test_what_is_said_about_a_text_of_the_wrong_type_does_not_speak_of_dates(
    shared: Tally, customer_id: str, path: str, field: str
) -> None:
    body = _object(_good(path, customer_id) | {field: "5"})
    content = problem(_service(shared, path).request("POST", path, body=body.encode()), 422, field)
    assert "date" not in content["errors"][0]["message"]


# Valid JSON that few programs can read: it is malformed or a wrong value, and nothing is recorded.


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '"\\udc00"', '"Ada \\ud83d"', '"\\ude00\\ud83d"', '"\\ud800a"']
)
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/customers", "name"),
        ("/customers", "account_id"),
        ("/invoices", "purchase_date"),
        ("/invoices", "reference"),
        ("/accounts", "name"),
        ("/accounts", "owned_by"),
        ("/accounts", "description"),
    ],
)
def test_a_lone_surrogate_is_refused(
    shared: Tally, watch: Watch, customer_id: str, path: str, field: str, text: str
) -> None:
    body = _object(_good(path, customer_id) | {field: text})
    with watch.nothing_changes():
        response = _service(shared, path).request("POST", path, body=body.encode())
        if response.status == 422:
            problem(response, 422, field)
        else:
            problem(response, 400)


# A name that is given twice: it would not be clear which one counts

TWICE = {
    "alike": ('"name": "a", "name": "a"', "name"),
    "the first of them wrong": ('"name": 1, "name": "b"', "name"),
    "the second of them wrong": ('"name": "b", "name": null', "name"),
    "one in escapes": ('"name": "a", "n\\u0061me": "b"', "name"),
    "blanks before the colon": ('"name" : "a", "name"\n:\t"b"', "name"),
    "three times": ('"name": "a", "name": "b", "name": "c"', "name"),
    "an unknown one": ('"name": "a", "x": 1, "x": 1', "x"),
    "an empty one": ('"name": "a", "": 1, "": 1', ""),
    "below an unknown one": ('"name": "a", "x": {"id": 1, "y": {"id": 1, "id": 2}}', "x.y.id"),
    "in a list": ('"name": "a", "x": [1, [], [{}, {"y": 1, "y": 1}]]', "x[2][1].y"),
    "half a character": ('"name": "a", "\\ud800": 1, "\\ud800": 1', "?"),
}


@pytest.mark.parametrize("path", ["/customers", "/accounts"])
@pytest.mark.parametrize(("fields", "twice"), TWICE.values(), ids=TWICE)
def test_a_name_that_is_given_twice_is_refused(
    shared: Tally, watch: Watch, path: str, fields: str, twice: str
) -> None:
    body = f'{{{fields}, "account_id": "1", "owned_by": "user1"}}'
    with watch.nothing_changes():
        found = problem(_service(shared, path).request("POST", path, body=body.encode()), 422, twice)
    assert [each["message"] for each in found["errors"]] == ["Given twice"]


def test_names_that_are_given_twice_are_told_with_all_else_that_is_wrong(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    body = f'{{"customer_id": "{customer_id}", "customer_id": "{customer_id}", "purchase_date": "today"}}'
    with watch.nothing_changes():
        response = customers.request("POST", "/invoices", body=body.encode())
        problem(response, 422, "customer_id", "purchase_date", "purchase_price_cents")


def test_a_name_that_is_given_twice_in_a_batch_is_told_with_its_index(
    customers: Client, watch: Watch, customer_id: str
) -> None:
    good = json.dumps(invoice(customer_id))
    price = good[:-1] + ', "purchase_price_cents": 1}'
    below = good[:-1] + ', "x": [{"y": 1, "y": 2}]}'
    body = f"[{good}, {price}, {good}, {below}]".encode()
    with watch.nothing_changes():
        response = customers.request("POST", "/invoices/batch", body=body)
        problem(response, 422, "[1].purchase_price_cents", "[3].x[0].y")


def test_a_flood_of_names_that_are_given_twice_is_answered_shortly(customers: Client, watch: Watch) -> None:
    body = b"[" + b",".join([b'{"x":{"a":1,"a":1}}'] * 9_000) + b"]"
    with watch.nothing_changes():
        response = customers.request("POST", "/customers/batch", body=body)
    assert (response.status, len(response.data) < 2_000_000) == (422, True)


def test_one_name_in_several_objects_and_colons_in_texts_are_nothing_twice(
    customers: Client, customer_id: str
) -> None:
    body = b'{"name": "a:\\":b", "account_id": "1", "x": {"name": 1, "y": {"name": "\\"name\\": 1"}}}'
    id = customers.request("POST", "/customers", body=body).json()["id"]
    assert customers.get(f"/customers/{id}")["name"] == 'a:":b'
    sent = [{"name": f"{number}: a", "account_id": "1", "x": [{"y": 1}, {"y": 1}]} for number in range(3)]
    ids = customers.post("/customers/batch", sent)["ids"]
    assert [customers.get(f"/customers/{id}")["name"] for id in ids] == ["0: a", "1: a", "2: a"]


@pytest.mark.parametrize("text", ["1e400", "-1e-400", "9" * 5000, '{"a": 1e999}'])
def test_a_number_beyond_all_bounds_in_an_unknown_field_is_ignored(customers: Client, text: str) -> None:
    body = f'{{"x": {text}, "name": "Ada: of bounds", "account_id": "1"}}'.encode()
    assert customers.request("POST", "/customers", body=body).status == 201
    assert customers.request("POST", "/customers/batch", body=b"[%s]" % body).status == 201


# Accepted values

LINES = {
    "one character": ("a", "a"),
    "200 characters": ("a" * 200, "a" * 200),
    "200 characters after trimming": (f"  {'a' * 200} \u2003", "a" * 200),
    "200 characters beyond the BMP": ("😀" * 200, "😀" * 200),
    "trimmed": ("  John Adams ", "John Adams"),
    "blanks inside": ("John   Adams", "John   Adams"),
    "accents": ("Zoë Å Ω", "Zoë Å Ω"),
    "combining": ("e\u0301", "e\u0301"),
    "a zero width non-joiner, as Persian has it": (
        "\u0646\u0627\u0645\u200c\u0647\u0627",
        "\u0646\u0627\u0645\u200c\u0647\u0627",
    ),
    "Hindi, vowel signs and all": ("\u0928\u0940\u0932\u093e", "\u0928\u0940\u0932\u093e"),
    "a flag": ("\U0001f1f3\U0001f1f4", "\U0001f1f3\U0001f1f4"),
    "a flag of tags": ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4\U000e0067\U000e007f"),
    "a Japanese name with the variant of an ideograph": ("\u845b\U000e0100", "\u845b\U000e0100"),
    "a family of emoji": ("👩\u200d❤️\u200d👨", "👩\u200d❤️\u200d👨"),
    "an emoji with a variation selector": ("\u2764\ufe0f", "\u2764\ufe0f"),
    "a keycap": ("1\ufe0f\u20e3", "1\ufe0f\u20e3"),
    "right to left": ("\u05e2\u05d3\u05d4", "\u05e2\u05d3\u05d4"),
    "a joined emoji": ("👩\u200d💻", "👩\u200d💻"),
    "quotes": ("\"O'Brien\\", "\"O'Brien\\"),
    "markup": ("<b>&amp;</b>", "<b>&amp;</b>"),
    "SQL": ("'; DROP TABLE customer; --", "'; DROP TABLE customer; --"),
    "digits": ("007", "007"),
    "a private character": ("\ue000", "\ue000"),
    "a noncharacter": ("a\uffff", "a\uffff"),
}
TAKEN_LINES = pytest.mark.parametrize(("sent", "shown"), LINES.values(), ids=LINES)


@TAKEN_LINES
def test_a_customers_name_is_kept_trimmed(customers: Client, watch: Watch, sent: str, shown: str) -> None:
    id = new_customer(customers, name=sent)
    assert customers.get(f"/customers/{id}")["name"] == shown
    assert watch.published("CustomerCreated", id=id, name=shown)


@TAKEN_LINES
def test_an_accounts_name_and_owner_are_kept_trimmed(
    accounts: Client, watch: Watch, sent: str, shown: str
) -> None:
    id = accounts.post("/accounts", {"name": sent, "owned_by": sent})["id"]
    account = accounts.get(f"/accounts/{id}")["account"]
    assert (account["name"], account["owned_by"]) == (shown, shown)
    assert watch.published("AccountCreated", id=id, name=shown, owned_by=shown)


@TAKEN_LINES
def test_an_account_lists_a_customer_by_its_trimmed_name(
    customers: Client, accounts: Client, sent: str, shown: str
) -> None:
    account_id = new_account(accounts)
    new_customer(customers, account_id, sent)

    def names() -> list[str]:
        return [each["name"] for each in accounts.get(f"/accounts/{account_id}")["customers"]]

    eventually(lambda: names() == [shown])


def test_a_name_may_be_written_in_escapes(customers: Client) -> None:
    body = b'{"name": "\\u005a\\u006f\\u00eb \\ud83d\\ude00 \\/", "account_id": "1"}'
    id = customers.request("POST", "/customers", body=body).json()["id"]
    assert customers.get(f"/customers/{id}")["name"] == "Zoë 😀 /"


@pytest.mark.parametrize("length", [0, 1, 2000])
def test_a_description_may_have_2_000_characters(accounts: Client, length: int) -> None:
    content = {"name": "one", "owned_by": "user1", "description": "😀" * length}
    id = accounts.post("/accounts", content)["id"]
    assert accounts.get(f"/accounts/{id}")["account"]["description"] == "😀" * length


def test_a_description_may_be_left_out(accounts: Client) -> None:
    assert accounts.get(f"/accounts/{new_account(accounts)}")["account"]["description"] == ""


@pytest.mark.parametrize("account_id", ["0", "1", "10", HIGHEST_ID])
def test_a_customers_account_may_be_any_id(customers: Client, account_id: str) -> None:
    id = new_customer(customers, account_id)
    assert customers.get(f"/customers/{id}")["account_id"] == account_id
    listed = customers.get(f"/customers?account_id={account_id}&after={int(id) - 1}")["customers"]
    assert [each["id"] for each in listed] == [id]


@pytest.mark.parametrize("cents", [0, 1, 10_000, 2**31, 2**32 + 1, MOST_CENTS - 1, MOST_CENTS])
def test_an_amount_goes_from_0_to_10_to_the_12th(
    customers: Client, watch: Watch, customer_id: str, cents: int
) -> None:
    id = new_invoice(customers, customer_id, cents)
    assert customers.get(f"/invoices/{id}")["purchase_price_cents"] == cents
    assert watch.published("InvoiceCreated", id=id, purchase_price_cents=cents)


@pytest.mark.parametrize("date", ["0001-01-01", "1900-02-28", "2000-02-29", "2020-02-29", "9999-12-31"])
def test_a_purchase_may_be_of_any_real_day(
    customers: Client, watch: Watch, customer_id: str, date: str
) -> None:
    id = customers.post("/invoices", invoice(customer_id) | {"purchase_date": date})["id"]
    assert customers.get(f"/invoices/{id}")["purchase_date"] == date
    assert watch.published("InvoiceCreated", id=id, purchase_date=date)


# Ignored fields

FOREIGN: dict[str, Any] = {
    "id": "999999999",
    "created_date": "1999-12-31T23:59:59Z",
    "deleted": True,
    "total_revenue_cents": 5,
    "": None,
    "nested": {"id": ["x", {"y": 1.5e300}]},
    "half a character: \ud800": "\udfff",
    "long": "x" * 10_000,
    "__proto__": {},
}


def _recent(moment: str) -> bool:
    return abs(datetime.now(UTC) - datetime.fromisoformat(moment)) < timedelta(minutes=1)


@pytest.mark.parametrize("path", ["/customers", "/invoices", "/accounts"])
def test_fields_that_are_not_known_are_ignored(shared: Tally, customer_id: str, path: str) -> None:
    client = _service(shared, path)
    fields = {name: json.loads(text) for name, text in _good(path, customer_id).items()}

    id = client.post(path, FOREIGN | fields)["id"]

    shown = client.get(f"{path}/{id}")
    shown = shown.get("account", shown)
    assert id != FOREIGN["id"]
    assert set(shown) == {"id", "created_date", "revision", *fields}
    assert {name: shown[name] for name in fields} == fields
    assert _recent(shown["created_date"])


@pytest.mark.parametrize("path", ["/customers", "/invoices"])
def test_fields_that_are_not_known_are_ignored_in_batches_too(
    customers: Client, customer_id: str, path: str
) -> None:
    fields = {name: json.loads(text) for name, text in _good(path, customer_id).items()}
    ids = customers.post(f"{path}/batch", [fields | FOREIGN, FOREIGN | fields])["ids"]
    for id in ids:
        shown = customers.get(f"{path}/{id}")
        assert id != FOREIGN["id"]
        assert {name: shown[name] for name in fields} == fields
        assert _recent(shown["created_date"])


@pytest.mark.parametrize("id", ["7", 7, None, "not an id", [1]])
def test_an_id_that_a_client_sends_may_even_be_wrong(customers: Client, id: object) -> None:
    assert customers.post("/customers", {"id": id, "name": "Ada", "account_id": "1"})["id"] != id
