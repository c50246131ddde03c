"""Purchases read from a file: what is taken, and what is said about what isn't."""

from io import BytesIO

import pytest

from tally.commands.purchase_file import BAD_ROWS_SHOWN, Columns, NoPurchaseFile, PurchaseFile, read
from tally.events import MAX_CENTS

HEADER = "customer,purchase_date,amount\n"


def _read(content: str | bytes, *columns: str, delimiter: str | None = None) -> PurchaseFile:
    raw = content.encode() if isinstance(content, str) else content
    return read(BytesIO(raw), Columns(*columns), delimiter, lambda rows: None)


def _rows(found: PurchaseFile) -> list[tuple[str, str, int]]:
    purchases = found.purchases
    return [
        (purchases.customers[each.customer], each.date.isoformat(), each.cents)
        for each in purchases.part(0, len(purchases))
    ]


def _reasons(found: PurchaseFile) -> dict[int, str]:
    return {row.line: row.reason for row in found.bad}


ADAMS = [("John Adams", "2019-01-06", 2933)]


@pytest.mark.parametrize(
    "content",
    [
        "customer,purchase_date,amount\nJohn Adams,2019-01-06,29.33\n",
        "customer,purchase_date,amount\r\nJohn Adams,2019-01-06,29.33\r\n",
        "customer,purchase_date,amount\nJohn Adams,2019-01-06,29.33",
        "\ufeffcustomer,purchase_date,amount\nJohn Adams,2019-01-06,29.33\n",
        "customer;purchase_date;amount\nJohn Adams;2019-01-06;29.33\n",
        "customer\tpurchase_date\tamount\nJohn Adams\t2019-01-06\t29.33\n",
        '"customer","purchase_date","amount"\n"John Adams","2019-01-06","29.33"\n',
        "customer , purchase_date, amount\n John Adams , 2019-01-06, 29.33\n",
        'amount,note,customer,purchase_date\n29.33,"two\nlines, and more",John Adams,2019-01-06\n',
        "customer,purchase_date,amount\n\nJohn Adams,2019-01-06,29.33\n\n\n",
    ],
    ids=[
        "plain",
        "CRLF",
        "no end",
        "BOM",
        "semicolon",
        "tab",
        "quoted",
        "blanks",
        "more columns",
        "empty lines",
    ],
)
def test_a_row_is_read_however_the_file_was_written(content: str) -> None:
    found = _read(content)
    assert (_rows(found), found.bad_count) == (ADAMS, 0)


def test_columns_and_delimiter_may_be_others() -> None:
    found = _read("who|when|sum\nJohn Adams|2019-01-06|29.33\n", "who", "when", "sum", delimiter="|")
    assert _rows(found) == ADAMS


def test_each_distinct_customer_is_one_in_the_order_of_the_file() -> None:
    found = _read(f"{HEADER}b,2019-01-06,1\na,2019-01-06,2\n b ,2019-01-07,3\nB,2019-01-06,4\n")
    assert found.purchases.customers == ["b", "a", "B"]
    assert [cents for _, _, cents in _rows(found)] == [100, 200, 300, 400]


@pytest.mark.parametrize(
    ("amount", "cents"),
    [("29.33", 2933), ("0", 0), ("0.1", 10), ("0.10", 10), ("007.5", 750), ("10000000000", MAX_CENTS),
     ("10000000000.00", MAX_CENTS), ("0.29", 29), ("1.15", 115), ("9999999999.99", MAX_CENTS - 1)],
)  # fmt: skip
def test_an_amount_is_exact(amount: str, cents: int) -> None:
    assert [row[2] for row in _rows(_read(f"{HEADER}a,2019-01-06,{amount}\n"))] == [cents]


@pytest.mark.parametrize(
    "amount",
    ["", "-1", "+1", "1e3", "NaN", "Infinity", "29.333", "29.", ".5", "1_000", '"1,000.00"', '"29,33"',
     "10000000000.01", "99999999999999999999", "$5", "٣", "1 0", "0x10"],
)  # fmt: skip
def test_what_is_no_amount_is_a_bad_row(amount: str) -> None:
    found = _read(f"{HEADER}a,2019-01-06,{amount}\n")
    assert len(found.purchases) == 0
    assert found.purchases.customers == []
    assert _reasons(found)[2].startswith("amount: Expected an amount such as 29.33")


@pytest.mark.parametrize(
    "date", ["", "2019-02-29", "20190106", "6.1.2019", "2019-1-6", "2019-01-06T00:00:00Z"]
)
def test_what_is_no_date_is_a_bad_row(date: str) -> None:
    found = _read(f"{HEADER}a,{date},1\n")
    assert _reasons(found) == {2: f"purchase_date: Expected a date, YYYY-MM-DD, got {date!r}"}


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x07b", '"two\nlines"'])
def test_what_is_no_name_is_a_bad_row(name: str) -> None:
    found = _read(f"{HEADER}{name},2019-01-06,1\n")
    assert _reasons(found)[2].startswith("customer: Expected")


def test_a_name_that_is_not_utf_8_is_a_bad_row_in_its_line_and_the_others_are_read() -> None:
    content = HEADER.encode() + b"M\xfcller,2019-01-06,1\n" + "Müller,2019-01-06,2\n".encode()
    found = _read(content)
    assert _rows(found) == [("Müller", "2019-01-06", 200)]
    assert _reasons(found)[2].startswith("customer: Expected UTF-8")


def test_all_that_is_wrong_with_a_row_is_told_with_the_line_it_begins_in() -> None:
    found = _read(f'{HEADER}\n"a\n\nb",today,much\nx,2019-01-06\nx,2019-01-06,1,2\n')
    reasons = _reasons(found)
    assert list(reasons) == [3, 6, 7]
    assert [part.split(":")[0] for part in reasons[3].split("; ")] == ["customer", "purchase_date", "amount"]
    assert reasons[6] == "Expected 3 columns, got 2"
    assert reasons[7] == "Expected 3 columns, got 4"


def test_of_many_bad_rows_the_first_are_kept_and_all_are_counted() -> None:
    found = _read(HEADER + "a,today,1\n" * 100)
    assert (len(found.bad), found.bad_count) == (BAD_ROWS_SHOWN, 100)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "line 1: the column 'customer' is not there; found: nothing"),
        (
            "name,purchase_date,amount\n",
            "line 1: the column 'customer' is not there; found: name, purchase_date",
        ),
        ("customer,amount,purchase_date,amount\n", "line 1: the column 'amount' is twice there"),
        ("\x00\x01PNG\n", "line 1: the column 'customer' is not there"),
        (HEADER.encode("utf-16"), "line 1: the column 'customer' is not there"),
        (HEADER + 'a,2019-01-06,1\n"b,2019-01-06,1\n\nc,2019-01-06,1\n', "line 3: is no CSV from here on"),
        (HEADER + '"a"b,2019-01-06,1\n', "line 2: is no CSV from here on"),
        (HEADER + "x" * 2_000_000, "line 2: is longer than"),
    ],
    ids=[
        "empty",
        "other columns",
        "twice",
        "binary",
        "UTF-16",
        "open quote",
        "text after a quote",
        "no lines",
    ],
)
def test_what_is_no_file_of_purchases_is_told_with_its_line(content: str | bytes, told: str) -> None:
    with pytest.raises(NoPurchaseFile) as refusal:
        _read(content)
    assert str(refusal.value).startswith(told)
    assert str(refusal.value).isprintable()


def test_the_digest_is_of_every_byte() -> None:
    row = "a,2019-01-06,1"
    digests = {_read(HEADER + row + rest).digest for rest in ("", "\n", "\r\n", "\n\n", "\nb,2019-01-06,1")}
    assert len(digests) == 5
