"""A person uses the customers page in many ways."""

import csv
import signal

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from support.browser import OpenWindow, Person, look_over
from support.shop import Shop
from support.waiting import eventually
from tally.store.customer_search import MOST_RANKED

LINES = """cell => {
    const text = document.createRange();
    text.selectNodeContents(cell);
    return text.getClientRects().length;
}"""


def _detail(page: Page) -> Locator:
    return page.locator("#detail")


def _field(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True).and_(page.locator(":visible"))


def _said_of(page: Page, label: str) -> Locator:
    """A field's error message, as a screen reader finds it."""
    return page.locator(f"#{_field(page, label).get_attribute('aria-describedby')}")


def _record(page: Page, amount: str) -> None:
    _field(page, "Amount").fill(amount)
    _field(page, "Amount").press("Enter")


def test_a_customer_is_found_by_a_part_of_its_name_or_by_its_id(person: Person, shop: Shop) -> None:
    id = shop.customer("Åsa Lindqvist", "700007")
    shop.customer("Bo Ek", "700007")
    shop.see_customers(person.page)
    rows = person.page.locator("#customers tbody tr")
    expect(rows).to_have_count(2)
    for search in ("åsa lind", "ÅSA", id):
        person.page.get_by_label("Search customers").fill(search)
        expect(rows.filter(has_text=f"{shop.mark} Åsa")).to_have_count(1)
        expect(rows.filter(has_text=f"{shop.mark} Bo")).to_have_count(0)
    person.page.get_by_label("Search customers").fill(f"{shop.mark} nobody")
    expect(person.page.get_by_text("No customer matches.")).to_be_visible()


def test_many_customers_are_paged_the_newest_first(person: Person, shop: Shop) -> None:
    names = [f"{shop.mark} {number:02}" for number in range(30)]
    shop.tally.customers.post("/customers/batch", [{"name": name, "account_id": "1"} for name in names])
    shop.see_customers(person.page)
    links = person.page.locator("#customers tbody th a")
    expect(links).to_have_text(names[:4:-1])
    person.page.get_by_role("button", name="Next").click()
    expect(links).to_have_text(names[4::-1])
    person.page.get_by_role("button", name="Previous").click()
    expect(links).to_have_count(25)


def test_a_customer_is_recorded_by_keyboard_alone(person: Person, shop: Shop) -> None:
    shop.see_customers(person.page)
    person.page.get_by_role("button", name="New customer").press("Enter")
    expect(_field(person.page, "Name")).to_be_focused()
    person.page.keyboard.type(f"{shop.mark} Ada")
    person.page.keyboard.press("Tab")
    person.page.keyboard.type("700012")
    person.page.keyboard.press("Enter")
    heading = person.page.get_by_role("heading", name=f"{shop.mark} Ada")
    expect(heading).to_be_focused()
    id = person.page.url.partition("#customer=")[2]
    assert shop.tally.customers.get(f"/customers/{id}")["account_id"] == "700012"


def test_on_a_phone_the_date_of_an_invoice_takes_one_line(window: OpenWindow, shop: Shop) -> None:
    page, customer = window(viewport={"width": 390, "height": 844}).page, shop.customer("Ada")
    for cents in (2933, 10**12):
        shop.invoice(customer, cents, "2026-09-30")
    shop.see_customers(page, f"#customer={customer}")
    date = page.locator("#entries tbody .under")
    expect(date).to_have_text(["Sep 30, 2026"] * 2)
    for cell in date.all():
        expect(cell).to_be_visible()
        assert cell.evaluate(LINES) == 1


def test_what_is_wrong_with_a_customer_is_said_at_the_field(person: Person, shop: Shop) -> None:
    shop.see_customers(person.page)
    person.page.get_by_role("button", name="New customer").click()
    record = person.page.get_by_role("button", name="Record customer")
    record.click()
    expect(_said_of(person.page, "Name")).to_have_text("Enter the customer's name.")
    expect(_said_of(person.page, "Account")).to_contain_text("Enter the name or the id of the account")
    expect(_field(person.page, "Name")).to_be_focused()
    expect(_field(person.page, "Name")).to_have_attribute("aria-invalid", "true")
    _field(person.page, "Name").fill("a\x07b")
    _field(person.page, "Account").fill("007")
    record.click()
    expect(_said_of(person.page, "Account")).to_have_text(
        "Choose an account from those suggested, or enter its id, such as 7."
    )
    _field(person.page, "Account").fill("7")
    record.click()
    expect(_said_of(person.page, "Name")).to_have_text("Expected no control characters.")
    expect(_said_of(person.page, "Account")).to_have_text("")
    expect(_field(person.page, "Name")).to_be_focused()
    person.expects("422")
    person.page.keyboard.press("Escape")
    expect(person.page.get_by_role("button", name="New customer")).to_be_focused()


def test_a_button_stays_under_the_mouse_while_it_is_clicked(person: Person, shop: Shop) -> None:
    """Suggestions take room in a form, and go when the field is left."""
    shop.see_customers(person.page)
    person.page.get_by_role("button", name="New customer").click()
    _field(person.page, "Account").fill(f"none like {shop.mark}")
    expect(person.page.get_by_text("No account matches.")).to_be_visible()
    record = person.page.get_by_role("button", name="Record customer")
    box = record.bounding_box()
    assert box
    person.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2)
    person.page.mouse.down()
    person.page.mouse.up()
    expect(_said_of(person.page, "Name")).to_have_text("Enter the customer's name.")
    expect(person.page.get_by_text("No account matches.")).to_be_hidden()


def test_an_amount_is_recorded_to_the_cent(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    amounts = {"29.33": 2933, "29,33": 2933, " 29,3 ": 2930, "29": 2900, "0": 0, "0.29": 29,
               "9007199.01": 900719901, "10000000000": 10**12}  # fmt: skip
    for number, written in enumerate(amounts, 1):
        _record(person.page, written)
        expect(person.page.locator("#entries tbody tr")).to_have_count(number)
        expect(_field(person.page, "Amount")).to_have_value("")
        expect(_field(person.page, "Amount")).to_be_focused()
    assert shop.invoices(id) == list(amounts.values())


def test_an_invoice_is_recorded_for_the_day_that_is_chosen(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    _field(person.page, "Date of purchase").fill("2024-02-29")
    _record(person.page, "5")
    expect(person.page.locator("#entries")).to_contain_text("Feb 29, 2024")
    (invoice,) = shop.tally.customers.get(f"/invoices?customer_id={id}")["invoices"]
    assert invoice["purchase_date"] == "2024-02-29"


def test_an_amount_that_is_none_is_said_at_the_field_and_records_nothing(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    unclear = "Write digits only, like 29.33 or 29,33: no currency, no thousands separators."
    negative = "An amount can't be negative. To take an invoice back, delete it."
    large = "At most 10,000,000,000.00 can be recorded in one invoice."
    for written, said in {
        "": "Enter the amount.",
        **dict.fromkeys(["1,234.50", "1.234,50", "1,234", "29.333", "€ 5", "1e3", "ten", ".5"], unclear),
        **dict.fromkeys(["-1", "\u22121", "(5.00)"], negative),
        "1.2345": "Write at most two decimals, like 29.33.",
        "10000000000.01": large,
    }.items():
        _record(person.page, written)
        expect(_said_of(person.page, "Amount")).to_have_text(said)
        expect(_field(person.page, "Amount")).to_have_attribute("aria-invalid", "true")
        expect(_field(person.page, "Amount")).to_be_focused()
    assert shop.invoices(id) == []


def test_a_customer_of_an_account_that_is_not_there_is_told_so(person: Person, shop: Shop) -> None:
    shop.see_customers(person.page, f"#customer={shop.customer('Ada', '987654')}")
    said = "There is no account 987654: what this customer spends shows in no account."
    expect(person.page.locator("#customer-notice")).to_have_text(said)
    account = shop.account("open")
    shop.see_customers(person.page, f"#customer={shop.customer('Bob', account)}")
    expect(person.page.locator("#customer-name")).to_contain_text("Bob")
    expect(person.page.locator("#customer-notice")).to_be_hidden()


def test_a_missing_date_is_said_at_the_field(person: Person, shop: Shop) -> None:
    shop.see_customers(person.page, f"#customer={shop.customer('Ada')}")
    _field(person.page, "Date of purchase").fill("")
    _record(person.page, "5")
    expect(_said_of(person.page, "Date of purchase")).to_have_text("Enter the date.")
    expect(_field(person.page, "Date of purchase")).to_be_focused()


def test_a_double_click_records_once(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    _field(person.page, "Amount").fill("5")
    person.page.get_by_role("button", name="Record", exact=True).dblclick()
    expect(person.page.locator("#announce")).to_have_text("Invoice of 5.00 recorded")
    expect(person.page.locator("#entries tbody tr")).to_have_count(1)
    assert shop.invoices(id) == [500]


def test_what_is_sent_again_because_no_answer_came_is_recorded_once(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")

    def lose_the_answer(route: Route) -> None:
        assert route.fetch().status == 201
        route.abort()

    person.page.route("**/invoices", lose_the_answer, times=1)
    _record(person.page, "5")
    alert = person.page.get_by_role("alert")
    expect(alert).to_have_text("The customers service does not answer. Send it again: it is recorded once.")
    person.expects("ERR_FAILED")
    assert shop.invoices(id) == [500]
    _field(person.page, "Amount").press("Enter")
    expect(person.page.locator("#announce")).to_have_text("Invoice of 5.00 recorded")
    expect(alert).to_have_text("")
    assert shop.invoices(id) == [500]
    _record(person.page, "5")  # a second invoice with the same content
    eventually(lambda: shop.invoices(id) == [500, 500])


def test_invoices_are_shown_the_newest_first_and_added_up(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    new = [
        {"customer_id": id, "purchase_date": "2026-01-06", "purchase_price_cents": cents}
        for cents in range(30)
    ]
    shop.tally.customers.post("/invoices/batch", new)
    shop.see_customers(person.page, f"#customer={id}")
    amounts = person.page.locator("#entries tbody td.strong")
    expect(amounts).to_have_text([f"0.{cents:02}" for cents in range(29, 4, -1)])
    expect(person.page.locator("#customer-revenue")).to_have_text("4.35")
    expect(person.page.locator("#customer-count")).to_have_text("30")
    _detail(person.page).get_by_role("button", name="Older").click()
    expect(amounts).to_have_text([f"0.{cents:02}" for cents in range(4, -1, -1)])
    expect(person.page.get_by_text("26 to 30 of 30")).to_be_visible()


def _suggested(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Accounts").get_by_role("option")


def _choose(page: Page, menu: str, action: str) -> None:
    page.get_by_role("button", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def test_an_invoice_that_is_deleted_can_be_taken_back(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.invoice(id, 100)
    shop.invoice(id, 2933)
    page = person.page
    shop.see_customers(page, f"#customer={id}")
    rows = page.locator("#entries tbody tr")
    expect(rows).to_have_count(2)
    newest = shop.tally.customers.get(f"/invoices?customer_id={id}&order=-id")["invoices"][0]["id"]
    _choose(page, f"Actions for invoice {newest}", "Delete")
    expect(rows).to_have_count(1)
    expect(page.locator("#held")).to_contain_text("Invoice of 29.33 deleted.")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.get_by_role("button", name="Undo").press("Enter")
    expect(rows).to_have_count(2)
    expect(page.locator("#customer-name")).to_be_focused()
    assert shop.invoices(id) == [100, 2933]


def test_a_deletion_that_nobody_takes_back_is_sent(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    invoice = shop.invoice(id, 100)
    page = person.page
    page.clock.install()
    shop.see_customers(page, f"#customer={id}")
    _choose(page, f"Actions for invoice {invoice}", "Delete")
    expect(page.get_by_text("No invoices yet.")).to_be_visible()
    assert shop.invoices(id) == [100]
    page.clock.run_for(8_000)
    eventually(lambda: shop.invoices(id) == [])
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    expect(page.locator("#customer-count")).to_have_text("0")


def test_a_deletion_is_sent_when_the_page_is_left(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    invoice = shop.invoice(id, 100)
    shop.see_customers(person.page, f"#customer={id}")
    _choose(person.page, f"Actions for invoice {invoice}", "Delete")
    expect(person.page.get_by_role("button", name="Undo")).to_be_visible()
    person.page.goto("about:blank")
    eventually(lambda: shop.invoices(id) == [])


def test_a_customer_without_invoices_can_be_taken_back_too(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    page = person.page
    shop.see_customers(page)
    link = page.get_by_role("link", name=f"{shop.mark} Ada", exact=True)
    link.click()
    _choose(page, "More for the customer", "Delete customer")
    expect(page.locator("#held")).to_contain_text(f"{shop.mark} Ada deleted.")
    expect(page.get_by_text("No customer matches.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(link).to_be_visible()
    assert shop.customers() == {id}


def test_an_invoice_that_somebody_changed_is_not_deleted(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    invoice = shop.invoice(id, 100)
    page = person.page
    page.clock.install()
    shop.see_customers(page, f"#customer={id}")
    _choose(page, f"Actions for invoice {invoice}", "Delete")
    shop.tally.customers.request("PATCH", f"/invoices/{invoice}", {"purchase_price_cents": 7})
    page.clock.run_for(8_000)
    said = "Not deleted: Invoice of 1.00. Somebody has changed it meanwhile."
    expect(page.locator("#held")).to_contain_text(said)
    expect(page.locator("#entries tbody tr")).to_contain_text("0.07")
    page.locator("#held").get_by_role("button", name="Close").click()
    assert shop.invoices(id) == [7]
    person.expects("412")


def test_a_customer_is_deleted_with_its_invoices_after_a_question(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.invoice(id, 100)
    shop.invoice(id, 2933)
    shop.see_customers(person.page)
    person.page.get_by_role("link", name=f"{shop.mark} Ada").click()
    _choose(person.page, "More for the customer", "Delete customer")
    question = person.page.get_by_role("dialog", name=f"Delete {shop.mark} Ada?")
    expect(question).to_contain_text("2 invoices go with the customer, 30.33 in all.")
    question.get_by_role("button", name="Delete customer").click()
    expect(person.page.get_by_text("No customer matches.")).to_be_visible()
    expect(_detail(person.page)).to_be_hidden()
    assert shop.tally.customers.request("GET", f"/customers/{id}").status == 404


def test_a_customer_that_somebody_else_deletes_is_said_to_be_gone(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    expect(_detail(person.page)).to_be_visible()
    shop.tally.customers.delete(f"/customers/{id}")
    expect(person.page.get_by_text(f"There is no customer {id}")).to_be_visible()
    expect(_detail(person.page)).to_be_hidden()
    person.expects("404")
    person.page.goto("about:blank")
    person.complaints.clear()  # the page asked for the customer again and again


def test_names_are_text_whatever_they_look_like(person: Person, shop: Shop) -> None:
    name = "<img src=x onerror=alert(1)><b>bold</b>"
    id = shop.customer(name)
    shop.invoice(id, 1)
    shop.see_customers(person.page, f"#customer={id}")
    expect(person.page.locator("#customer-name")).to_have_text(f"{shop.mark} {name}")
    _choose(person.page, "More for the customer", "Delete customer")
    expect(person.page.get_by_role("dialog")).to_contain_text(name)
    expect(person.page.locator("main img, main b, dialog img")).to_have_count(0)


def test_on_a_phone_the_customer_takes_the_lists_place_and_gives_it_back(
    window: OpenWindow, shop: Shop
) -> None:
    person = window(viewport={"width": 360, "height": 740})
    shop.customer("Ada")
    shop.see_customers(person.page)
    link = person.page.get_by_role("link", name=f"{shop.mark} Ada", exact=True)
    link.click()
    expect(_detail(person.page)).to_be_visible()
    expect(person.page.locator("#customer-name")).to_be_in_viewport()
    expect(link).to_be_hidden()
    person.page.get_by_role("link", name="All customers").click()
    expect(link).to_be_visible()
    expect(link).to_be_focused()


def test_who_records_an_invoice_sees_the_new_total_on_the_other_page_at_once(
    person: Person, shop: Shop
) -> None:
    """The consumers that will apply the invoice are stopped for a while: the page waits for them."""
    page = person.page
    account = shop.account("Lakeside", 2933)
    shop.see_customers(page, f"#customer={shop.customer('Ada', account)}")
    consumers = [name for name in shop.tally.pids() if name.startswith("accounts-consumer")]
    for name in consumers:
        shop.tally.kill(name, signal.SIGSTOP)
    try:
        _record(page, "10.67")
        expect(page.locator("#entries tbody tr")).to_have_count(1)
        with page.expect_request(lambda request: "tally-after" in request.headers):
            page.get_by_role("link", name=f"{shop.mark} Lakeside").click()
        assert "after" not in page.url
    finally:
        for name in consumers:
            shop.tally.kill(name, signal.SIGCONT)
    expect(page.locator("#total-revenue")).to_have_text("40.00")


# --- the list, and the address -----------------------------------------------------------------


def test_what_one_looks_at_is_in_the_address(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    for number, cents in enumerate((500, 900, 100)):
        shop.invoice(shop.customer(f"Customer {number}", account), cents)
    shop.see_customers(page)
    links = page.locator("#customers tbody th a")
    page.get_by_role("button", name="Revenue").click()
    by_revenue = [f"{shop.mark} Customer {number}" for number in (1, 0, 2)]
    expect(links).to_have_text(by_revenue)
    expect(page.get_by_role("columnheader", name="Revenue")).to_have_attribute("aria-sort", "descending")
    assert "order=-revenue" in page.url
    page.reload()
    expect(links).to_have_text(by_revenue)
    expect(page.get_by_label("Search customers")).to_have_value(shop.mark)
    page.get_by_role("button", name="Revenue").click()
    expect(links).to_have_text(by_revenue[::-1])
    links.first.click()
    expect(page.locator("#customer-name")).to_be_focused()
    page.go_back()
    expect(links).to_have_text(by_revenue[::-1])
    page.go_back()
    expect(links).to_have_text(by_revenue)
    _field(page, "Sort by").select_option("By name")
    expect(links).to_have_text(sorted(by_revenue))


def test_more_customers_than_are_sorted_at_once_are_sorted_a_moment_later(person: Person, shop: Shop) -> None:
    page, names = person.page, [f"{shop.mark} Many {number}" for number in range(MOST_RANKED + 1)]
    ids = []
    for some in (names[:MOST_RANKED], names[MOST_RANKED:]):
        rows = [{"name": name, "account_id": "1"} for name in some]
        ids += shop.tally.customers.post("/customers/batch", rows)["ids"]
    shop.invoice(ids[1], 500)
    shop.invoice(ids[0], 400)
    shop.see_customers(page)
    page.get_by_role("button", name="Revenue").click()
    links = page.locator("#customers tbody th a")
    expect(page.get_by_text("There are many customers: their order is that of ")).to_be_visible()
    expect(links.nth(0)).to_have_text(names[1])
    expect(links.nth(1)).to_have_text(names[0])
    expect(links.nth(2)).to_have_text(names[-1])
    page.get_by_role("button", name="Next").click()
    expect(links.nth(0)).to_have_text(names[-24])
    page.get_by_label("Search customers").fill(f"{shop.mark} Many 1000")
    expect(links.nth(0)).to_have_text(f"{shop.mark} Many 10000")
    expect(page.get_by_text("There are many customers")).to_be_hidden()


def test_customers_are_shown_with_their_accounts_names_and_chosen_by_these(
    person: Person, shop: Shop
) -> None:
    page, ids = person.page, [shop.account(name) for name in ("Harbour", "Lakeside")]
    for id in ids:
        shop.customer("Ada", id)
    shop.see_customers(page)
    rows = page.locator("#customers tbody tr")
    expect(rows.locator("td a")).to_have_text([f"{shop.mark} Lakeside", f"{shop.mark} Harbour"])
    account = page.get_by_label("Only of the account")
    account.press_sequentially(f"{shop.mark} h")
    expect(_suggested(page)).to_have_count(1)
    account.press("ArrowDown")
    account.press("Enter")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(f"{shop.mark} Harbour")
    assert f"account={ids[0]}" in page.url
    page.reload()
    expect(account).to_have_value(f"{shop.mark} Harbour")
    expect(rows).to_have_count(1)
    account.fill("")
    expect(rows).to_have_count(2)


def test_where_the_accounts_service_does_not_answer_the_id_is_shown_and_taken(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("Harbour")
    page.route("**/accounts/names**", lambda route: route.abort())
    shop.customer("Ada", account)
    shop.see_customers(page)
    expect(page.locator("#customers tbody tr td a")).to_have_text(f"Account {account}")
    page.get_by_label("Only of the account").fill(account)
    expect(page.get_by_text("does not answer: enter the account's id.").first).to_be_visible()
    page.get_by_label("Only of the account").press("Tab")
    expect(page.locator("#customers tbody tr")).to_have_count(1)
    assert f"account={account}" in page.url
    person.expects("ERR_FAILED")


def test_the_list_is_saved_as_csv_as_it_is_filtered(person: Person, shop: Shop) -> None:
    page = person.page
    shop.customer("Ada", "700071")
    shop.customer("Bo", "700072")
    shop.see_customers(page)
    page.get_by_label("Search customers").fill(f"{shop.mark} bo")
    expect(page.locator("#customers tbody tr")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    header, *lines = csv.reader(download.value.path().read_text().splitlines())
    assert header == ["customer", "id", "account_id", "created_date"]
    assert [line[0] for line in lines] == [f"{shop.mark} Bo"]
    assert download.value.suggested_filename == "customers.csv"


# --- one customer ------------------------------------------------------------------------------


def test_a_customer_is_told_in_figures(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.invoice(id, 1000, "2026-01-06")
    shop.invoice(id, 501, "2026-03-09")
    shop.see_customers(person.page, f"#customer={id}")
    figures = {
        "revenue": "15.01",
        "count": "2",
        "average": "7.51",
        "first": "Jan 6, 2026",
        "last": "Mar 9, 2026",
    }
    for name, shown in figures.items():
        expect(person.page.locator(f"#customer-{name}")).to_have_text(shown)
    expect(person.page.locator("#customer-first")).to_have_text("Jan 6, 2026")
    expect(person.page.locator("#customer-last")).to_have_text("Mar 9, 2026")
    months = person.page.get_by_role("region", name="Revenue by month").get_by_role("listitem")
    expect(months).to_have_text(["Jan 2026: 10.00", "Feb 2026: 0.00", "Mar 2026: 5.01"])


def test_a_customers_name_and_account_are_changed(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    id = shop.customer("Ada")
    shop.see_customers(page, f"#customer={id}")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(_field(page, "Account")).to_have_value("everyone")
    _field(page, "Name").fill(f"{shop.mark} Ada Lovelace")
    _field(page, "Account").fill(f"{shop.mark} har")
    page.get_by_role("option", name=f"{shop.mark} Harbour").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=f"{shop.mark} Ada Lovelace")).to_be_visible()
    expect(page.locator("#customer-about")).to_contain_text(f"{shop.mark} Harbour")
    changed = shop.tally.customers.get(f"/customers/{id}")
    assert (changed["name"], changed["account_id"]) == (f"{shop.mark} Ada Lovelace", account)
    _choose(page, "More for the customer", "History")
    history = page.get_by_role("dialog", name=f"{shop.mark} Ada Lovelace")
    expect(history.get_by_role("listitem")).to_have_count(2)
    expect(history).to_contain_text(f"Account: everyone → {shop.mark} Harbour")


def test_what_somebody_else_changed_meanwhile_is_said_before_it_is_written_over(
    person: Person, shop: Shop
) -> None:
    page, id = person.page, shop.customer("Ada")
    shop.see_customers(page, f"#customer={id}")
    page.get_by_role("button", name="Change", exact=True).click()
    shop.tally.customers.request("PATCH", f"/customers/{id}", {"name": f"{shop.mark} Eve"})
    _field(page, "Name").fill(f"{shop.mark} Adele")
    page.get_by_role("button", name="Save").click()
    said = page.get_by_role("dialog").get_by_role("alert")
    expect(said).to_contain_text(
        f"Somebody else has changed this meanwhile: the name is now “{shop.mark} Eve”."
    )
    assert shop.tally.customers.get(f"/customers/{id}")["name"] == f"{shop.mark} Eve"
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=f"{shop.mark} Adele")).to_be_visible()
    person.expects("412")


def test_an_invoice_is_changed_credited_and_remembered(person: Person, shop: Shop) -> None:
    page, id = person.page, shop.customer("Ada")
    invoice = shop.invoice(id, 1000)
    shop.see_customers(page, f"#customer={id}")
    menu = f"Actions for invoice {invoice}"
    _choose(page, menu, "Change")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Amount")).to_have_value("10.00")
    dialog.get_by_label("Amount").fill("12.50")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#customer-revenue")).to_have_text("12.50")
    _choose(page, menu, "Credit")
    expect(dialog.get_by_label("Amount")).to_have_value("12.50")
    dialog.get_by_label("Amount").fill("2.50")
    dialog.get_by_label("Reference").fill("CN-1")
    dialog.get_by_role("button", name="Record credit").click()
    expect(page.locator("#customer-revenue")).to_have_text("10.00")
    rows = page.locator("#entries tbody tr")
    expect(rows.filter(has_text="2.50 credited")).to_have_count(1)
    expect(rows.filter(has_text=f"Credit for invoice {invoice} CN-1")).to_have_count(1)
    _choose(page, menu, "History")
    history = page.get_by_role("dialog", name=f"Invoice {invoice}")
    expect(history.get_by_role("listitem").locator("strong")).to_have_text(
        ["Recorded", "Changed", "Credited 2.50"]
    )
    expect(history).to_contain_text("Amount: 10.00 → 12.50")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name=menu)).to_be_focused()


def test_a_credit_of_no_invoice_and_a_reference_are_recorded(person: Person, shop: Shop) -> None:
    page, id = person.page, shop.customer("Ada")
    shop.see_customers(page, f"#customer={id}")
    _field(page, "Reference (may be empty)").fill(f"{shop.mark}-1")
    _record(page, "20")
    expect(page.locator("#entries tbody tr")).to_contain_text(f"{shop.mark}-1")
    page.get_by_role("button", name="Record a credit").click()
    dialog = page.get_by_role("dialog", name="Record a credit")
    dialog.get_by_label("Amount").fill("5")
    dialog.get_by_label("Id of the invoice").fill("999999")
    dialog.get_by_role("button", name="Record credit").click()
    expect(dialog.locator(".error").filter(has_text="999999")).to_be_visible()
    dialog.get_by_label("Id of the invoice").fill("")
    dialog.get_by_role("button", name="Record credit").click()
    expect(page.locator("#customer-revenue")).to_have_text("15.00")
    (credit,) = shop.tally.customers.get(f"/credits?customer_id={id}")["credits"]
    assert (credit["credited_cents"], credit["invoice_id"]) == (500, None)
    person.expects("422")


# --- all invoices ------------------------------------------------------------------------------


def test_invoices_of_all_customers_are_filtered_and_saved(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    ids = [shop.customer(name, account) for name in ("Ada", "Bo")]
    for id, day in ((ids[0], "2025-03-01"), (ids[1], "2025-02-01"), (ids[0], "2025-01-01")):
        shop.invoice(id, 100, day)
    shop.see_customers(page, "#invoices")
    rows = page.locator("#all-invoices tbody tr")
    account_field = _field(page, "Account")
    account_field.fill(f"{shop.mark} har")
    page.get_by_role("option", name=f"{shop.mark} Harbour").click()
    days = rows.locator("td.date")
    expect(days).to_have_text(["Jan 1, 2025", "Feb 1, 2025", "Mar 1, 2025"])
    _field(page, "Sort by").select_option("Latest date first")
    expect(days).to_have_text(["Mar 1, 2025", "Feb 1, 2025", "Jan 1, 2025"])
    _field(page, "From").fill("2025-02-01")
    _field(page, "To").fill("2025-02-28")
    expect(days).to_have_text(["Feb 1, 2025"])
    page.reload()
    expect(days).to_have_text(["Feb 1, 2025"])
    expect(_field(page, "From")).to_have_value("2025-02-01")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    _, *lines = csv.reader(download.value.path().read_text().splitlines())
    assert [line[:3] for line in lines] == [[f"{shop.mark} Bo", "2025-02-01", "1.00"]]
    rows.get_by_role("link", name=f"{shop.mark} Bo").click()
    expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} Bo")
    page.go_back()
    expect(days).to_have_text(["Feb 1, 2025"])
    _field(page, "Reference").fill("no such reference")
    expect(page.get_by_text("No invoice matches.")).to_be_visible()


def test_invoices_are_turned_over_and_the_address_knows_the_page(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    id = shop.customer("Ada", account)
    new = [
        {"customer_id": id, "purchase_date": "2026-01-06", "purchase_price_cents": cents}
        for cents in range(60)
    ]
    shop.tally.customers.post("/invoices/batch", new)
    shop.see_customers(page, f"#invoices&account={account}")
    amounts = page.locator("#all-invoices tbody td.strong")
    expect(amounts).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    last = [f"0.{cents:02}" for cents in range(9, -1, -1)]
    expect(amounts).to_have_text(last)
    page.reload()
    expect(amounts).to_have_text(last)
    page.get_by_role("button", name="Previous").click()
    expect(amounts).to_have_count(50)


# --- axe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["invoices", "a menu", "the history", "suggestions", "a held deletion"])
def test_axe_has_nothing_to_blame_however_one_looks(window: OpenWindow, shop: Shop, state: str) -> None:
    account = shop.account("Harbour")
    id = shop.customer("W" * 180, account)
    invoice = shop.invoice(id, 10**11)
    page = window(reduced_motion="reduce").page
    shop.see_customers(page, f"#invoices&account={account}" if state == "invoices" else f"#customer={id}")
    expect(page.locator("main table:visible tbody tr")).to_have_count(1)
    match state:
        case "a menu":
            page.get_by_role("button", name=f"Actions for invoice {invoice}").click()
        case "the history":
            _choose(page, "More for the customer", "History")
            expect(page.get_by_role("dialog")).to_contain_text("Recorded")
        case "suggestions":
            page.get_by_role("button", name="Change", exact=True).click()
            _field(page, "Account").fill(f"{shop.mark} ")
            expect(_suggested(page)).to_have_count(1)
            _field(page, "Account").press("ArrowDown")
        case "a held deletion":
            page.clock.install()
            _choose(page, f"Actions for invoice {invoice}", "Delete")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1440, 720, 390):  # 720 is the width of 1440 at a zoom of 200 %
            page.set_viewport_size({"width": width, "height": 740})
            look_over(page, (scheme, width))
