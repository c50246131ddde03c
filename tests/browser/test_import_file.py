"""A person imports a file in many ways."""

import csv
import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from support.browser import OpenWindow, Person, look_over
from support.shop import Shop

HEAD = "Client,Issued,Total,Invoice Number\n"
ROWS = 'Ada,2024-01-31,"1,200.50",A-1\nBo,2024-02-01,12.00,A-2\nAda,2024-02-29,29.33,A-3\n'
BAD = "Cy,soon,5,A-4\n,2024-03-01,x,A-5\n"


def _dialog(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Import a file")


def _file(shop: Shop, rows: str = ROWS, head: str = HEAD) -> FilePayload:
    """A file whose customers belong to this test only."""
    marked = re.sub("^(?=[A-ZÅ])", f"{shop.mark} ", rows, flags=re.MULTILINE)
    return {"name": "invoices.csv", "mimeType": "text/csv", "buffer": (head + marked).encode()}


def _choose(page: Page, file: FilePayload, account: str = "") -> Locator:
    """Choose a file, and an account by its id."""
    page.get_by_role("button", name="Import", exact=True).click()
    dialog = _dialog(page)
    dialog.locator("input[type=file]").set_input_files(file)
    if account:
        dialog.get_by_label("Account", exact=True).fill(account)
    return dialog


def _submit(dialog: Locator) -> Locator:
    return dialog.locator(".form-end button").last


def _amounts(shop: Shop, account: str) -> list[int]:
    listed = shop.tally.customers.get(f"/invoices?account_id={account}")["invoices"]
    return [each["purchase_price_cents"] for each in listed]


def test_a_file_is_chosen_seen_and_imported(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    dialog = _choose(page, _file(shop))
    expect(dialog.get_by_role("status").first).to_have_text("Choose the account that the rows belong to.")
    for column, name in {"Customer": "Client", "Date": "Issued", "Amount": "Total"}.items():
        expect(dialog.get_by_label(f"{column} column")).to_have_value(name)
    expect(dialog.get_by_label("Reference column")).to_have_value("Invoice Number")
    for needless in ("Dates are written as", "Decimal mark"):
        expect(dialog.get_by_label(needless)).to_be_hidden()
    dialog.get_by_label("Account", exact=True).fill(f"{shop.mark} har")
    dialog.get_by_role("option", name=f"{shop.mark} Harbour").click()
    expect(dialog.locator("dd")).to_have_text(["2", "3", "1,241.83Jan 31, 2024 \N{EN DASH} Feb 29, 2024"])
    expect(dialog.locator("tbody tr").first).to_have_text(f"Jan 31, 2024{shop.mark} AdaA-11,200.50")
    assert _amounts(shop, account) == []
    _submit(dialog).click()
    done = page.get_by_role("dialog", name="Imported")
    expect(done).to_contain_text("3 invoices recorded in")
    expect(done.get_by_role("heading", name="Imported")).to_be_focused()
    assert _amounts(shop, account) == [120050, 1200, 2933]
    done.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_focused()
    expect(page.locator("#customers tbody th a")).to_have_text([f"{shop.mark} Bo", f"{shop.mark} Ada"])


def test_what_was_recorded_is_shown_in_its_account(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    _submit(_choose(page, _file(shop), account)).click()
    page.get_by_role("dialog", name="Imported").get_by_role("link", name=f"{shop.mark} Harbour").click()
    expect(page.get_by_role("heading", name=f"{shop.mark} Harbour")).to_be_visible()
    expect(page.locator("main")).to_contain_text("1,241.83")


def test_a_file_is_imported_by_keyboard_into_the_account_that_one_looks_at(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page, f"#account={account}")
    page.on("filechooser", lambda chooser: chooser.set_files(_file(shop)))
    page.get_by_role("button", name="Import", exact=True).press("Enter")
    expect(_dialog(page)).to_be_visible()
    page.keyboard.press("Tab")
    expect(_dialog(page).locator("input[type=file]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(_submit(_dialog(page))).to_have_text("Import 3 invoices")
    for _ in range(30):
        page.keyboard.press("Tab")
        if _submit(_dialog(page)).evaluate("each => each === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Imported")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(_amounts(shop, account)) == 3


def test_a_file_is_dropped_and_one_may_think_better_of_it(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page, f"#account={account}")
    page.get_by_role("button", name="Import", exact=True).click()
    dropped = """text => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([text], "dropped.csv", { type: "text/csv" }));
        const drop = document.querySelector(".drop");
        drop.dispatchEvent(new DragEvent("dragover", { dataTransfer, bubbles: true, cancelable: true }));
        drop.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(dropped, HEAD + ROWS)
    expect(_dialog(page).locator(".drop")).to_contain_text("dropped.csv")
    expect(_submit(_dialog(page))).to_have_text("Import 3 invoices")
    _dialog(page).get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_focused()
    assert _amounts(shop, account) == []


def test_dates_that_could_be_read_in_two_ways_are_asked_for(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    dialog = _choose(page, _file(shop, "Ada;01/02/2024;12,50\n", "name;day;sum\n"), account)
    expect(dialog.get_by_role("status").first).to_have_text(
        "These dates could be read in several ways: choose how they are written."
    )
    for column, name in {"Customer": "name", "Date": "day"}.items():
        expect(dialog.get_by_label(f"{column} column")).to_have_value(name)
    dialog.get_by_label("Amount column").select_option("sum")
    dialog.get_by_label("Dates are written as").select_option("31/01/2024")
    expect(dialog.get_by_label("Decimal mark")).to_have_value(",")
    expect(dialog.locator("tbody")).to_contain_text("Feb 1, 2024")
    dialog.get_by_label("Dates are written as").select_option("01/31/2024")
    expect(dialog.locator("tbody")).to_contain_text("Jan 2, 2024")
    dialog.get_by_label("Reference column").select_option("day")  # this changes no other choice
    expect(dialog.locator("tbody")).to_contain_text("01/02/2024")
    expect(dialog.locator("tbody")).to_contain_text("Jan 2, 2024")
    _submit(dialog).click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("1 invoice recorded")
    assert _amounts(shop, account) == [1250]


def test_bad_rows_are_told_and_left_out_only_when_one_says_so(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    dialog = _choose(page, _file(shop, ROWS + BAD), account)
    expect(dialog.get_by_role("heading", name="2 bad rows")).to_be_visible()
    dialog.get_by_text("Show them").click()
    bad = dialog.get_by_role("table", name="2 bad rows").locator("tbody tr")
    expect(bad).to_contain_text(["5Issued: Expected a date, YYYY-MM-DD, got 'soon'", "6Client: Expected"])
    expect(_submit(dialog)).to_have_attribute("aria-disabled", "true")
    _submit(dialog).press("Enter")
    expect(dialog.get_by_label("Leave the 2 bad rows out")).to_be_focused()
    assert _amounts(shop, account) == []
    dialog.get_by_label("Leave the 2 bad rows out").check()
    _submit(dialog).click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("3 invoices recorded")
    assert len(_amounts(shop, account)) == 3


def test_bad_rows_are_downloaded_mended_and_imported_alone(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    dialog = _choose(page, _file(shop, ROWS + "Åsa,soon,5,A-4\n=Di,2024-03-01,x,A-5\n"), account)
    with page.expect_download() as started:
        dialog.get_by_role("button", name="Download the 2 bad rows").click()
    assert started.value.suggested_filename == "invoices-bad-rows.csv"
    apart = started.value.path().read_bytes()
    header, *rows = csv.reader(io.StringIO(apart.decode("utf-8-sig"), newline=""))
    assert header == [*HEAD.strip().split(","), "line", "reason"]
    assert [row[:5] for row in rows] == [
        [f"{shop.mark} Åsa", "soon", "5", "A-4", "5"],
        ["'=Di", "2024-03-01", "x", "A-5", "6"],
    ]
    assert rows[0][5].startswith("Issued: Expected a date")
    dialog.get_by_label("Leave the 2 bad rows out").check()
    _submit(dialog).click()
    done = page.get_by_role("dialog", name="Imported")
    expect(done).to_contain_text("2 bad rows left out.")
    with page.expect_download() as started:
        done.get_by_role("button", name="Download the 2 bad rows").click()
    assert started.value.path().read_bytes() == apart
    done.get_by_role("button", name="Close").click()

    mended = apart.replace(b"soon", b"2024-03-02").replace(b",x,", b",7.50,")
    again = _choose(page, {"name": "mended.csv", "mimeType": "text/csv", "buffer": mended}, account)
    for column, name in {"Customer": "Client", "Date": "Issued", "Amount": "Total"}.items():
        expect(again.get_by_label(f"{column} column")).to_have_value(name)
    expect(again.get_by_label("Reference column")).to_have_value("Invoice Number")
    _submit(again).click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("2 invoices recorded")
    assert _amounts(shop, account) == [120050, 1200, 2933, 500, 750]
    listed = shop.tally.customers.get(f"/customers?account_id={account}")["customers"]
    assert [each["name"] for each in listed][2:] == [f"{shop.mark} Åsa", "=Di"]


def test_a_file_that_was_imported_has_nothing_new_and_the_next_one_only_what_is(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    _submit(_choose(page, _file(shop), account)).click()
    page.get_by_role("dialog", name="Imported").get_by_role("button", name="Close").click()
    dialog = _choose(page, _file(shop), account)
    expect(_submit(dialog)).to_have_text("Nothing new")
    expect(dialog.locator("dd").nth(1)).to_have_text("03 known already")
    more = _file(shop, ROWS + "Ada,2024-03-01,-9,A-6\n")
    dialog.locator("input[type=file]").set_input_files(more)
    expect(dialog.locator(".notice")).to_contain_text("An amount can't be negative")
    dialog.get_by_label("A negative amount is").select_option("Recorded as a credit")
    expect(_submit(dialog)).to_have_text("Import 1 credit")
    _submit(dialog).click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("1 credit recorded")


def test_a_file_that_is_sent_again_because_no_answer_came_is_recorded_once(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    dialog = _choose(page, _file(shop), account)
    expect(_submit(dialog)).to_have_text("Import 3 invoices")

    def lose_the_answer(route: Route) -> None:
        assert route.fetch().status == 201
        route.abort()

    page.route("**/imports?*", lose_the_answer, times=1)
    _submit(dialog).click()
    expect(dialog.get_by_role("alert").last).to_have_text(
        "The customers service does not answer. Send it again: it is recorded once."
    )
    person.expects("ERR_FAILED")
    _submit(dialog).click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("3 invoices recorded")
    assert len(_amounts(shop, account)) == 3


def test_what_is_no_file_of_purchases_is_said(person: Person, shop: Shop, tmp_path: Path) -> None:
    page = person.page
    shop.see_customers(page)
    dialog = _choose(page, {"name": "book.xlsx", "mimeType": "", "buffer": b"PK\x03\x04"})
    trouble = dialog.locator(".error[role=alert]")
    expect(trouble).to_contain_text("the file is a workbook of Excel")
    person.expects("422")
    large = tmp_path / "large.csv"
    large.write_bytes(b"x" * (16 * 1024**2 + 1))
    dialog.locator("input[type=file]").set_input_files(large)
    expect(trouble).to_contain_text("The file has more than 16 MiB")
    dialog.locator("input[type=file]").set_input_files(_file(shop))
    expect(trouble).to_have_text("")
    expect(dialog.get_by_label("Customer column")).to_have_value("Client")


def test_text_of_a_file_is_shown_as_it_is(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.see_customers(page)
    hostile = "<img src=x onerror=alert(1)>"
    dialog = _choose(page, _file(shop, f"A{hostile},2024-01-31,1\n", "client,date,amount\n"), account)
    expect(dialog.locator("tbody th")).to_have_text(f"{shop.mark} A{hostile}")


@pytest.mark.parametrize("state", ["open", "chosen", "seen", "imported"])
def test_axe_has_nothing_to_blame(window: OpenWindow, shop: Shop, state: str) -> None:
    page, account = window(reduced_motion="reduce").page, shop.account("Harbour")
    shop.see_customers(page)
    if state == "open":
        page.get_by_role("button", name="Import", exact=True).click()
    else:
        dialog = _choose(page, _file(shop, ROWS + BAD), "" if state == "chosen" else account)
        dialog.get_by_text("More about the file").click()
    if state in ("seen", "imported"):
        dialog.get_by_text("Show them").click()
    if state == "imported":
        dialog.get_by_label("Leave the 2 bad rows out").check()
        _submit(dialog).click()
        expect(page.get_by_role("dialog", name="Imported")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1440, 720, 390):
            page.set_viewport_size({"width": width, "height": 740})
            look_over(page, (scheme, width))
