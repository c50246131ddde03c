"""Purchases read from a file: which rows are accepted, and the messages about the others."""

import contextlib
import csv
import io
import random
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tally.events import MAX_CENTS
from tally.importing import rejects
from tally.importing.purchase_file import PurchaseFile, read
from tally.importing.tables import NoTable, Reading, Table

HEADER = "customer,purchase_date,amount\n"


def _read(content: str | bytes, *columns: str, **options: Any) -> PurchaseFile:
    raw = content.encode() if isinstance(content, str) else content
    named: dict[str, Any] = dict(zip(("customer", "date", "amount"), columns, strict=False))
    return read(BytesIO(raw), Reading(**named, **options), lambda rows: None)


def _rows(found: PurchaseFile) -> list[tuple[str, str, int]]:
    purchases = found.purchases
    return [(purchases.buyers[each.buyer].name, each.date.isoformat(), each.cents) for each in purchases]


def _reasons(found: PurchaseFile) -> dict[int, str]:
    return found.bad


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
        "\r\n\r\ncustomer;purchase_date;amount\r\nJohn Adams;2019-01-06;29.33\r\n",
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
        "empty lines first",
    ],
)
def test_a_row_is_read_however_the_file_was_written(content: str) -> None:
    found = _read(content)
    assert (_rows(found), found.bad) == (ADAMS, {})


def test_columns_and_delimiter_may_be_others() -> None:
    found = _read("who|when|sum\nJohn Adams|2019-01-06|29.33\n", "who", "when", "sum", delimiter="|")
    assert _rows(found) == ADAMS


def test_each_distinct_customer_is_one_in_the_order_of_the_file() -> None:
    found = _read(f"{HEADER}b,2019-01-06,1\na,2019-01-06,2\n b ,2019-01-07,3\nB,2019-01-06,4\n")
    assert [each.name for each in found.purchases.buyers] == ["b", "a", "B"]
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
    ["", "+1", "1e3", "NaN", "Infinity", "29.", ".5", "1_000", '"29,33"', "10000000000.01",
     "99999999999999999999", "٣", "1 0", "0x10",
     '"1,00"', '"1,0000"', '"1,000 000"', "--1", "-(1)", "(1", "$$1",
     "$1$", "-1-", "1.2.3", '"1,000,00.00"', "1.000.000", '"0,123"', '"012,345"', '"1\r234"'],
)  # fmt: skip
def test_what_is_no_amount_is_a_bad_row(amount: str) -> None:
    found = _read(f"{HEADER}a,2019-01-06,{amount}\n")
    assert len(found.purchases) == 0
    assert found.purchases.buyers == []
    assert _reasons(found)[2].startswith("amount: Expected an amount such as 29.33")


@pytest.mark.parametrize(
    ("amount", "cents"),
    [("1,000.00", 100000), ("1,234,567", 123456700), ("1 234.5", 123450), ("1\u00a0234.50", 123450),
     ("1\u202f234", 123400), ("1'234.56", 123456), ("1\u2019234.56", 123456), ("$5", 500),
     ("5 €", 500), ("£ 5.10", 510),
     ("29.3300", 2933), ("$1,200.00", 120000)],
)  # fmt: skip
def test_thousands_are_separated_in_threes_and_symbols_are_passed_over(amount: str, cents: int) -> None:
    assert [row[2] for row in _rows(_read(f'{HEADER}a,2019-01-06,"{amount}"\n'))] == [cents]


@pytest.mark.parametrize(
    ("amount", "cents"),
    [
        ("29,33", 2933),
        ("1.234,56", 123456),
        ("1.234", 123400),
        ("1 234,5", 123450),
        ("0,5 €", 50),
        ("7", 700),
    ],
)
def test_the_decimal_mark_may_be_a_comma(amount: str, cents: int) -> None:
    found = _read(f"customer;purchase_date;amount\na;2019-01-06;{amount}\n", decimal=",")
    assert [row[2] for row in _rows(found)] == [cents]


@pytest.mark.parametrize("amount", ["1{}x", "-{}x", "1{}2x", "$({}x)"])
def test_a_cell_of_blanks_keeps_nobody_waiting(amount: str) -> None:
    content = f"{HEADER}a,2019-01-06,{amount.format(' ' * 100_000)}\n"
    assert "Expected an amount such as 29.33" in _read(content).bad[2]


@pytest.mark.parametrize("amount", ["29.33", "1.23", "1,234.56", "0.123"])
def test_the_other_mark_is_no_decimal_mark(amount: str) -> None:
    found = _read(f"customer;purchase_date;amount\na;2019-01-06;{amount}\n", decimal=",")
    assert _reasons(found)[2].startswith("amount: Expected an amount such as 29,33")


@pytest.mark.parametrize(
    "amount", ["-20.00", "20.00-", "(20.00)", "($20.00)", "$(20.00)", "-$20", "$-20", "\u221220", "- 20"]
)
def test_a_negative_amount_is_a_bad_row_or_a_credit(amount: str) -> None:
    content = f"{HEADER}a,2019-01-06,{amount}\n"
    assert _reasons(_read(content))[2].startswith(
        "amount: An amount can't be negative. To take an invoice back"
    )
    assert _rows(_read(content, negative="credit")) == [("a", "2019-01-06", -2000)]


@pytest.mark.parametrize(
    ("amount", "cents"), [("10.005", 1000), ("10.015", 1002), ("0.0149", 1), ("1.999", 200), ("-0.005", 0)]
)
def test_parts_of_cents_are_bad_or_rounded_half_to_even(amount: str, cents: int) -> None:
    content = f"{HEADER}a,2019-01-06,{amount}\n"
    told = "amount: Expected at most two decimals (--round rounds them)"
    assert _reasons(_read(content))[2].startswith(told)
    assert [row[2] for row in _rows(_read(content, rounds=True))] == [cents]


@pytest.mark.parametrize(
    "date",
    ["", "2019-02-29", "20190106", "6.1.2019", "2019-1-6", "2019-01-06T", "2019-01-06 9:15", "2019-01-06x"],
)
def test_what_is_no_date_is_a_bad_row(date: str) -> None:
    found = _read(f"{HEADER}a,{date},1\n")
    assert _reasons(found) == {2: f"purchase_date: Expected a date, YYYY-MM-DD, got {date!r}"}


@pytest.mark.parametrize(
    "date",
    [
        "2019-01-06T00:00:00Z",
        "2019-01-06 23:59",
        "2019-01-06T23:59:59.123456+02:00",
        "2019-01-06 01:02:03 UTC",
    ],
)
def test_the_time_of_a_date_is_passed_over_and_the_day_is_as_it_is_written(date: str) -> None:
    assert _rows(_read(f"{HEADER}a,{date},1\n")) == [("a", "2019-01-06", 100)]


@pytest.mark.parametrize(
    ("format", "date"), [("%d.%m.%Y", "06.01.2019"), ("%d.%m.%Y", "6.1.2019"), ("%m/%d/%Y", "1/6/2019"),
                         ("%m/%d/%y %H:%M", "1/6/19 09:15"), ("%d %b %Y", "06 Jan 2019")],
)  # fmt: skip
def test_dates_have_the_format_that_is_told(format: str, date: str) -> None:
    assert _rows(_read(f"{HEADER}a,{date},1\n", date_format=format)) == [("a", "2019-01-06", 100)]


@pytest.mark.parametrize(
    ("format", "date"), [("%Y%m%d", "202411"), ("%d%m%Y", "1112024"), ("%m%d%y %H:%M", "11124 9:05")]
)
def test_a_date_without_marks_needs_all_its_digits(format: str, date: str) -> None:
    """Spreadsheets drop the first 0 of 01112024, and what is left could be in January or November."""
    found = _read(f"{HEADER}a,{date},1\n", date_format=format)
    assert "Expected a date like" in found.bad[2]


def test_a_date_of_another_format_is_a_bad_row() -> None:
    found = _read(f"{HEADER}a,13/1/2019,1\n", date_format="%m/%d/%Y")
    assert _reasons(found)[2] == "purchase_date: Expected a date like 01/31/2024, got '13/1/2019'"


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


def test_every_bad_row_has_its_reason() -> None:
    found = _read(HEADER + "a,today,1\n" * 100)
    assert (found.rows, [*found.bad]) == (100, [*range(2, 102)])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "line 1: the column 'customer' is not there; found: nothing"),
        (
            "name,purchase_date,amount\n",
            "line 1: the column 'customer' is not there; found: name, purchase_date",
        ),
        ("customer,amount,purchase_date,amount\n", "line 1: the column 'amount' is twice there"),
        ("\x89PNG\x00\x01\n", "the file is no text"),
        (
            HEADER.encode("utf-16-le"),
            "the file is UTF-16 without a byte order mark: give --encoding utf-16-le",
        ),
        (
            HEADER.encode("utf-16-be"),
            "the file is UTF-16 without a byte order mark: give --encoding utf-16-be",
        ),
        (b"PK\x03\x04\x14\x00", "the file is a workbook of Excel or another packed file"),
        (b"\x1f\x8b\x08\x00", "the file is packed by gzip"),
        (b"\xd0\xcf\x11\xe0\xa1", "the file is an old workbook of Excel"),
        ('"cust"omer,purchase_date,amount\n', "line 1: is no CSV from here on"),
        ('customer,purchase_date,amount,"open\n', "line 1: is no CSV from here on"),
        ("Customer ,purchase_date,amount\n", "line 1: the column 'customer' is not there; found: Customer, "),
        (HEADER + 'a,2019-01-06,1\n"b,2019-01-06,1\n\nc,2019-01-06,1\n', "line 3: is no CSV from here on"),
        (HEADER + '"a"b,2019-01-06,1\n', "line 2: is no CSV from here on"),
        (HEADER + "x" * 2_000_000, "line 2: is longer than"),
    ],
    ids=[
        "empty",
        "other columns",
        "twice",
        "binary",
        "UTF-16 LE",
        "UTF-16 BE",
        "xlsx",
        "gzip",
        "xls",
        "text after a quote in the header",
        "open quote in the header",
        "another case",
        "open quote",
        "text after a quote",
        "no lines",
    ],
)
def test_what_is_no_file_of_purchases_is_told_with_its_line(content: str | bytes, told: str) -> None:
    with pytest.raises(NoTable) as refusal:
        _read(content)
    assert str(refusal.value).startswith(told)
    assert str(refusal.value).isprintable()


def test_the_digest_is_of_every_byte() -> None:
    row = "a,2019-01-06,1"
    digests = {_read(HEADER + row + rest).digest for rest in ("", "\n", "\r\n", "\n\n", "\nb,2019-01-06,1")}
    assert len(digests) == 5


def test_a_column_of_another_case_is_suggested() -> None:
    with pytest.raises(NoTable, match="did you mean 'Invoice Date'\\?"):
        _read("customer,Invoice Date,amount\n", "customer", "invoice date")


# How files are written


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(encoding: str, end: str) -> None:
    lines = ["customer\tpurchase_date\tamount", "Köhn\t2019-01-06\t1", "x\t2019-01-06\t2", ""]
    content = end.join(lines).encode(encoding)
    told = None if encoding in ("utf-8-sig", "utf-16", "utf-32") else encoding
    found = _read(content, encoding=told)
    assert _rows(found) == [("Köhn", "2019-01-06", 100), ("x", "2019-01-06", 200)]
    assert found.bad == {}


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_an_encoding_that_the_first_bytes_contradict_is_refused(mark: str) -> None:
    """Else M\u00fcller would become a customer of another name."""
    told = f"the mark of {mark.removesuffix('-sig').upper()}, not of cp1252"
    with pytest.raises(NoTable, match=told):
        _read(f"x,{HEADER}1,M\u00fcller,2019-01-06,1\n".encode(mark), encoding="cp1252")


@pytest.mark.parametrize("told", ["utf-16", "UTF-16LE", "utf_16_le"])
def test_a_mark_does_not_belong_to_the_first_column(told: str) -> None:
    assert _rows(_read(f"{HEADER}John Adams,2019-01-06,29.33\n".encode("utf-16"), encoding=told)) == ADAMS


def test_what_is_not_in_the_encoding_is_a_bad_row() -> None:
    content = f"{HEADER}ab,2019-01-06,1\n".encode("utf-16").replace(
        "a".encode("utf-16-le") + b"b", b"\x00\xd8" + b"b"
    )
    assert _reasons(_read(content))[2].startswith("customer: Expected UTF-16")
    content = HEADER.encode() + b"\x81,2019-01-06,1\n"
    assert _reasons(_read(content, encoding="cp1252"))[2].startswith("customer: Expected CP1252")


@pytest.mark.parametrize("beginning", ["sep=;\n", "sep=;\r\n", "SEP=;\r"])
def test_a_first_line_may_tell_the_delimiter(beginning: str) -> None:
    found = _read(f"{beginning}customer;purchase_date;amount\nJohn Adams;2019-01-06;29.33\n")
    assert _rows(found) == ADAMS


def test_lines_before_the_header_are_skipped_and_the_others_keep_their_numbers() -> None:
    found = _read(f'"open\n\nsep=,\n{HEADER}John Adams,2019-01-06,29.33\nx,y,z\n', skip_lines=3)
    assert _rows(found) == ADAMS
    assert [*found.bad] == [6]


def test_without_a_header_columns_are_numbers() -> None:
    content = "2019-01-06;John Adams;29,33\n2019-01-07;b;1\n"
    found = _read(content, "2", "1", "3", has_header=False, delimiter=";", decimal=",")
    assert _rows(found) == [*ADAMS, ("b", "2019-01-07", 100)]
    for wrong in ("0", "4", "name", "٣"):
        with pytest.raises(NoTable, match="has no number from 1 to 3"):
            _read(content, wrong, "1", "3", has_header=False, delimiter=";")


@pytest.mark.parametrize("column", ["0", "4", "0000000012", "x"])
def test_a_number_that_no_column_has_is_told(column: str) -> None:
    with pytest.raises(NoTable, match="has no number from 1 to 3"):
        _read("a,2019-01-06,1\n", column, "2", "3", has_header=False)


def test_a_name_is_as_long_as_it_will_be_recorded() -> None:
    """Composing an accent makes a name shorter, and some letters longer."""
    shorter, longer = "o\u0301" * 200, "\u0958" * 101
    found = _read(f"{HEADER}{shorter},2019-01-06,1\n{longer},2019-01-06,1\n")
    assert [each.name for each in found.purchases.buyers] == ["\u00f3" * 200]
    assert "Expected 1 to 200 characters, got 202" in found.bad[3]


def test_names_are_the_same_however_their_accents_are_written() -> None:
    found = _read(f"{HEADER}Zoe\u0301,2019-01-06,1\nZo\u00e9,2019-01-06,2\n")
    assert [each.name for each in found.purchases.buyers] == ["Zo\u00e9"]


# Which rows are taken, for which customer, and which belong together

INVOICES = (
    "Number,Name,Date,Item Total,Total\n"
    "INV-1,Blue,2024-04-01,10.00,35.00\n"
    "INV-1,Blue,2024-04-01,25.00,35.00\n"
    "INV-2,Red,2024-04-02,5.00,5.00\n"
)
NAMED = ("Name", "Date")


def test_rows_that_share_an_id_are_bad() -> None:
    found = _read(INVOICES, *NAMED, "Item Total", id="Number")
    assert [*found.bad] == [2, 3]
    assert found.bad[2].startswith("Number: Expected one row for each, got 2 for 'INV-1'")
    assert _rows(found) == [("Red", "2024-04-02", 500)]
    assert [each.name for each in found.purchases.buyers] == ["Red"]


@pytest.mark.parametrize(("amount", "lines"), [("Item Total", "sum"), ("Total", "first")])
def test_rows_that_share_an_id_are_lines_of_an_invoice(amount: str, lines: str) -> None:
    found = _read(INVOICES, *NAMED, amount, id="Number", lines=lines)
    assert found.bad == {}
    assert _rows(found) == [("Blue", "2024-04-01", 3500), ("Red", "2024-04-02", 500)]
    assert [each.reference for each in found.purchases] == ["INV-1", "INV-2"]


@pytest.mark.parametrize("lines", ["sum", "first"])
@pytest.mark.parametrize("other", ["Green,2024-04-01", "Blue,2024-04-02"])
def test_lines_of_an_invoice_have_one_customer_and_date(lines: str, other: str) -> None:
    content = INVOICES.replace("INV-1,Blue,2024-04-01,25.00", f"INV-1,{other},10.00")
    found = _read(content, *NAMED, "Item Total", id="Number", lines=lines)
    assert [*found.bad] == [2, 3]
    assert "Another row of 'INV-1' is bad" in found.bad[2]
    assert "Expected what the first row of INV-1 has (line 2)" in found.bad[3]


def test_a_bad_line_spoils_its_invoice() -> None:
    for row in (2, 3):
        lines = INVOICES.splitlines()
        lines[row - 1] = lines[row - 1].replace("2024-04-01", "soon")
        found = _read("\n".join(lines), *NAMED, "Item Total", id="Number", lines="sum")
        assert [*found.bad] == [2, 3]
        assert _rows(found) == [("Red", "2024-04-02", 500)]


def test_of_further_lines_cells_may_be_empty_where_the_first_counts() -> None:
    content = INVOICES.replace("INV-1,Blue,2024-04-01,25.00,35.00", "INV-1,,,25.00,")
    found = _read(content, *NAMED, "Total", id="Number", lines="first")
    assert (_rows(found)[0], found.bad) == (("Blue", "2024-04-01", 3500), {})


def test_other_amounts_of_further_lines_are_bad_where_the_first_counts() -> None:
    found = _read(INVOICES, *NAMED, "Item Total", id="Number", lines="first")
    assert [*found.bad] == [2, 3]


def test_a_discount_is_a_line_and_a_sum_may_not_be_negative() -> None:
    content = "Number,Name,Date,Item\nA,x,2024-04-01,10\nA,x,2024-04-01,-4\nB,x,2024-04-01,-1\n"
    named = ("Name", "Date", "Item")
    found = _read(content, *named, id="Number", lines="sum")
    assert _rows(found) == [("x", "2024-04-01", 600)]
    assert "An amount can't be negative" in found.bad[4]
    found = _read(content, *named, id="Number", lines="sum", negative="credit")
    assert [cents for *_, cents in _rows(found)] == [600, -100]


@pytest.mark.parametrize("row", ["INV-1,Blue,2024-04-01,25.00", "INV-1,Bl,ue,2024-04-01,25.00,35.00"])
def test_a_line_with_another_number_of_columns_spoils_its_invoice(row: str) -> None:
    content = INVOICES.replace("INV-1,Blue,2024-04-01,25.00,35.00", row)
    found = _read(content, *NAMED, "Item Total", id="Number", lines="sum")
    assert [*found.bad] == [2, 3]
    assert "Another row of 'INV-1' is bad" in found.bad[2]
    assert _rows(found) == [("Red", "2024-04-02", 500)]


def test_a_line_without_its_account_spoils_its_invoice() -> None:
    content = (
        "Company,Number,Name,Date,Item\nBig,A,x,2024-04-01,10\n,A,x,2024-04-01,4\nBig,B,x,2024-04-01,1\n"
    )
    found = _read(content, "Name", "Date", "Item", id="Number", account="Company", lines="sum")
    assert [*found.bad] == [2, 3]
    assert _rows(found) == [("x", "2024-04-01", 100)]


def test_a_row_without_an_id_is_bad() -> None:
    found = _read("Number,Name,Date,Item\n,x,2024-04-01,10\n", "Name", "Date", "Item", id="Number")
    assert found.bad[2].startswith("Number: Expected 1 to 100 characters")


def test_rows_are_taken_by_what_other_columns_have() -> None:
    content = "Status,Kind,customer,purchase_date,amount\n" + "".join(
        f"{status},{kind},a,2019-01-06,{place}\n"
        for place, (status, kind) in enumerate(
            [("Paid", "x"), ("Failed", "x"), ("Paid", "y"), (" Open ", "x")]
        )
    )
    found = _read(content, where=(("Status", "Paid"), ("Status", "Open"), ("Kind", "x")))
    assert [cents for *_, cents in _rows(found)] == [0, 300]
    assert (found.rows, found.passed_over, found.bad) == (4, 2, {})


def test_each_row_may_have_its_own_account() -> None:
    content = "of,customer,purchase_date,amount\nab,x,2019-01-06,1\n 7 ,x,2019-01-06,2\n,x,2019-01-06,3\n"
    found = _read(content, account="of")
    assert [(each.account, each.name) for each in found.purchases.buyers] == [("ab", "x"), ("7", "x")]
    assert found.bad == {4: "of: Expected 1 to 200 characters, got 0, got ''"}


# Warnings


def test_a_total_that_repeats_within_an_invoice_is_warned_of() -> None:
    (warning,) = _read(INVOICES, *NAMED, "Total", id="Number", lines="sum").warnings
    assert "'Total'" in warning
    assert "--lines first" in warning
    assert _read(INVOICES, *NAMED, "Total", id="Number", lines="first").warnings == []


def test_several_currencies_are_warned_of() -> None:
    content = "Currency,Status,customer,purchase_date,amount\n" + "".join(
        f"{code},{status},a,2019-01-06,1\n"
        for code, status in [("usd", "Paid"), ("eur", "Open"), ("usd", "Paid")]
    )
    (warning,) = _read(content).warnings
    assert "'Currency' looks like a currency and has several: eur, usd" in warning
    assert _read(content, where=(("Status", "Paid"),)).warnings == []
    (warning,) = _read(f"{HEADER}a,2019-01-06,$1\na,2019-01-06,1 €\n").warnings
    assert "$ €" in warning
    (warning,) = _read("c," + HEADER + "USD,a,2019-01-06,1\nEUR,a,2019-01-06,1\n").warnings
    assert "'c' looks like a currency" in warning


# Writing bad rows to a file of their own


def test_bad_rows_are_written_as_they_were_and_can_be_mended(tmp_path: Path) -> None:
    content = f'{HEADER}"a, b",today,1\ngood,2019-01-06,1\nshort\n c ,2019-01-06, x\n'
    found = _read(content)
    apart = tmp_path / "bad.csv"
    rejects.write(apart, Table(BytesIO(content.encode()), Reading()), found.bad)
    lines = apart.read_text().splitlines()
    assert lines[0] == "customer,purchase_date,amount,line,reason"
    assert lines[1].startswith('"a, b",today,1,2,"purchase_date: Expected a date')
    assert lines[2].startswith("short,,,4,")
    assert lines[3].startswith(" c ,2019-01-06, x,5,")
    mended = (
        apart.read_text()
        .replace("today", "2019-01-06")
        .replace(" x", "2")
        .replace("short,,", "short,2019-01-06,3")
    )
    assert _rows(_read(mended)) == [
        ("a, b", "2019-01-06", 100),
        ("short", "2019-01-06", 300),
        ("c", "2019-01-06", 200),
    ]


@pytest.mark.parametrize("seed", range(200))
def test_no_bytes_are_a_traceback(seed: int) -> None:
    """Random bytes, most of them close to a valid file."""
    made = random.Random(seed)
    pieces = [HEADER.encode(), b'"', b"\r", b"\n", b"\0", b"\xff\xfe", b",", b"a,2019-01-06,1\n", b";",
              b"\xef\xbb\xbf",
              b"sep=", bytes([made.randrange(256)]), b"\xd8"]  # fmt: skip
    content = b"".join(made.choice(pieces) for _ in range(made.randrange(12)))
    options: dict[str, Any] = made.choice(
        [{}, {"encoding": "utf-16"}, {"encoding": "cp1252"}, {"has_header": False}, {"skip_lines": 1}]
    )
    columns = ("1", "2", "3") if "has_header" in options else ()
    with contextlib.suppress(NoTable):
        _read(content, *columns, **options)


def _apart(content: str | bytes, most: int = 1000) -> str | None:
    raw = content if isinstance(content, bytes) else content.encode()
    return rejects.text(Table(BytesIO(raw), Reading()), _read(content).bad, most)


def test_bad_rows_that_are_bad_again_have_their_line_and_reason_once() -> None:
    first = _apart(f"{HEADER}a,today,1\nb,today,1,more\nc,2019-01-06,1\n")
    assert first is not None
    again = _apart(first)
    assert again is not None
    header, one, other = csv.reader(io.StringIO(again))
    assert header == ["customer", "purchase_date", "amount", "line", "reason"]
    assert one[:4] == ["a", "today", "1", "2"]
    assert len(one) == 5
    assert other[:4] == ["b", "today", "1", "more"]


def test_what_a_spreadsheet_would_run_is_made_harmless_in_bad_rows_and_is_understood() -> None:
    apart = _apart(f'{HEADER}=1+1,today,"-1,234.50"\n@a,today,-5\n')
    assert apart is not None
    rows = [*csv.reader(io.StringIO(apart))]
    assert [row[:3] for row in rows[1:]] == [["'=1+1", "today", "'-1,234.50"], ["'@a", "today", "-5"]]
    mended = _read(apart.replace("today", "2019-01-06"), negative="credit")
    assert _rows(mended) == [("=1+1", "2019-01-06", -123450), ("@a", "2019-01-06", -500)]


def test_what_was_made_harmless_before_means_the_same_in_bad_rows() -> None:
    content = f"{HEADER}'=1+1,2019-01-06,1\n'-Ann,2019-01-06,1\n''-Bo,2019-01-06,1\n"
    apart = _apart(content.replace("2019-01-06", "today"))
    assert apart is not None
    mended = _read(apart.replace("today", "2019-01-06"))
    assert _rows(mended) == _rows(_read(content))


def test_bad_rows_in_another_encoding_are_told_as_far_as_they_can_be_read() -> None:
    apart = _apart(f"{HEADER}\u00c5sa,2019-01-06,1\n".encode("cp1252"))
    assert apart is not None
    assert "\ufffdsa,2019-01-06,1,2," in apart


def test_bad_rows_that_are_too_many_are_not_told() -> None:
    content = HEADER + "a,today,1\n" * 20
    assert _apart(content) is None
    assert _apart(content, 10_000) is not None
