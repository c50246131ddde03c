"""A person's ways through the customers page."""

import signal

from playwright.sync_api import Locator, Page, Route, expect

from support.browser import OpenWindow, Person
from support.shop import Shop
from support.waiting import eventually


def _detail(page: Page) -> Locator:
    return page.locator("#detail")


def _field(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True)


def _said_of(page: Page, label: str) -> Locator:
    """What is said to be wrong with a field, as a screen reader finds it."""
    return page.locator(f"#{_field(page, label).get_attribute('aria-describedby')}")


def _record(page: Page, amount: str) -> None:
    _field(page, "Amount").fill(amount)
    _field(page, "Amount").press("Enter")


def test_a_customer_is_found_by_a_part_of_its_name_or_by_its_id(person: Person, shop: Shop) -> None:
    id = shop.customer("Åsa Lindqvist", "7")
    shop.customer("Bo Ek", "7")
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
    links = person.page.locator("#customers tbody a")
    expect(links).to_have_text(names[:4:-1])
    person.page.get_by_role("button", name="Older").click()
    expect(links).to_have_text(names[4::-1])
    person.page.get_by_role("button", name="Newer").click()
    expect(links).to_have_count(25)


def test_a_customer_is_recorded_by_keyboard_alone(person: Person, shop: Shop) -> None:
    shop.see_customers(person.page)
    person.page.get_by_role("button", name="New customer").press("Enter")
    expect(_field(person.page, "Name")).to_be_focused()
    person.page.keyboard.type(f"{shop.mark} Ada")
    person.page.keyboard.press("Tab")
    person.page.keyboard.type("12")
    person.page.keyboard.press("Enter")
    heading = person.page.get_by_role("heading", name=f"{shop.mark} Ada")
    expect(heading).to_be_focused()
    id = person.page.url.partition("#customer=")[2]
    assert shop.tally.customers.get(f"/customers/{id}")["account_id"] == "12"
    expect(person.page.locator("#customers tbody a[aria-current]")).to_have_text(f"{shop.mark} Ada")


def test_what_is_wrong_with_a_customer_is_said_at_the_field(person: Person, shop: Shop) -> None:
    shop.see_customers(person.page)
    person.page.get_by_role("button", name="New customer").click()
    record = person.page.get_by_role("button", name="Record customer")
    record.click()
    expect(_said_of(person.page, "Name")).to_have_text("Enter the customer's name.")
    expect(_said_of(person.page, "Account id")).to_contain_text("Enter the id of the account")
    expect(_field(person.page, "Name")).to_be_focused()
    expect(_field(person.page, "Name")).to_have_attribute("aria-invalid", "true")
    _field(person.page, "Name").fill("a\x07b")
    _field(person.page, "Account id").fill("007")
    record.click()
    expect(_said_of(person.page, "Account id")).to_have_text("An account's id is a number, such as 7.")
    _field(person.page, "Account id").fill("7")
    record.click()
    expect(_said_of(person.page, "Name")).to_have_text("Expected no control characters.")
    expect(_said_of(person.page, "Account id")).to_have_text("")
    expect(_field(person.page, "Name")).to_be_focused()
    person.expects("422")
    person.page.keyboard.press("Escape")
    expect(person.page.get_by_role("button", name="New customer")).to_be_focused()


def test_an_amount_is_recorded_to_the_cent(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    amounts = {"29.33": 2933, "29,33": 2933, " 29,3 ": 2930, "29": 2900, "0": 0, "0.29": 29,
               "9007199.01": 900719901, "10000000000": 10**12}  # fmt: skip
    for number, written in enumerate(amounts, 1):
        _record(person.page, written)
        expect(person.page.locator("#invoices tbody tr")).to_have_count(number)
        expect(_field(person.page, "Amount")).to_have_value("")
        expect(_field(person.page, "Amount")).to_be_focused()
    assert shop.invoices(id) == list(amounts.values())


def test_an_invoice_is_recorded_for_the_day_that_is_chosen(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    _field(person.page, "Date of purchase").fill("2024-02-29")
    _record(person.page, "5")
    expect(person.page.locator("#invoices")).to_contain_text("Feb 29, 2024")
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
    expect(_said_of(person.page, "Date of purchase")).to_have_text("Enter the date of the purchase.")
    expect(_field(person.page, "Date of purchase")).to_be_focused()


def test_a_double_click_records_once(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    _field(person.page, "Amount").fill("5")
    person.page.get_by_role("button", name="Record", exact=True).dblclick()
    expect(person.page.locator("#announce")).to_have_text("Invoice of 5.00 recorded")
    expect(person.page.locator("#invoices tbody tr")).to_have_count(1)
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
    _record(person.page, "5")  # another one, though it looks the same
    eventually(lambda: shop.invoices(id) == [500, 500])


def test_invoices_are_shown_the_newest_first_and_added_up(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    new = [
        {"customer_id": id, "purchase_date": "2026-01-06", "purchase_price_cents": cents}
        for cents in range(30)
    ]
    shop.tally.customers.post("/invoices/batch", new)
    shop.see_customers(person.page, f"#customer={id}")
    amounts = person.page.locator("#invoices tbody td.strong")
    expect(amounts).to_have_text([f"0.{cents:02}" for cents in range(29, 4, -1)])
    expect(person.page.locator("#customer-revenue")).to_have_text("4.35")
    expect(person.page.locator("#customer-count")).to_have_text("30")
    _detail(person.page).get_by_role("button", name="Older").click()
    expect(amounts).to_have_text([f"0.{cents:02}" for cents in range(4, -1, -1)])
    expect(person.page.get_by_text("26 to 30 of 30")).to_be_visible()


def test_an_invoice_is_deleted_only_after_a_question(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    kept, deleted = shop.invoice(id, 100), shop.invoice(id, 2933)
    shop.see_customers(person.page, f"#customer={id}")
    delete = person.page.get_by_role("button", name=f"Delete invoice {deleted}")
    delete.click()
    question = person.page.get_by_role("dialog", name=f"Delete invoice {deleted}?")
    expect(question).to_contain_text("29.33 of Jan 6, 2026. This can't be undone.")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    person.page.keyboard.press("Enter")
    expect(question).to_be_hidden()
    expect(delete).to_be_focused()
    assert shop.invoices(id) == [100, 2933]
    delete.click()
    question.get_by_role("button", name="Delete invoice").click()
    expect(delete).to_be_hidden()
    assert shop.invoices(id) == [100]
    expect(person.page.get_by_role("button", name=f"Delete invoice {kept}")).to_be_visible()
    expect(person.page.locator("#customer-name")).to_be_focused()


def test_a_customer_is_deleted_with_its_invoices_after_a_question(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.invoice(id, 100)
    shop.invoice(id, 2933)
    shop.see_customers(person.page)
    person.page.get_by_role("link", name=f"{shop.mark} Ada").click()
    person.page.get_by_role("button", name="Delete customer").click()
    question = person.page.get_by_role("dialog", name=f"Delete {shop.mark} Ada?")
    expect(question).to_contain_text("2 invoices go with the customer, 30.33 in all.")
    question.get_by_role("button", name="Delete customer").click()
    expect(person.page.get_by_text("No customer matches.")).to_be_visible()
    expect(_detail(person.page)).to_be_hidden()
    assert shop.tally.customers.request("GET", f"/customers/{id}").status == 404


def test_a_refused_deletion_says_why_in_the_question(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    invoice = shop.invoice(id, 100)
    shop.see_customers(person.page, f"#customer={id}")
    person.page.route(
        f"**/invoices/{invoice}",
        lambda route: route.fulfill(status=503, json={"detail": "The disk is full."}),
    )
    person.page.get_by_role("button", name=f"Delete invoice {invoice}").click()
    person.page.get_by_role("dialog").get_by_role("button", name="Delete invoice").click()
    expect(person.page.get_by_role("dialog").get_by_role("alert")).to_have_text("The disk is full.")
    person.expects("503")


def test_a_customer_that_somebody_else_deletes_is_said_to_be_gone(person: Person, shop: Shop) -> None:
    id = shop.customer("Ada")
    shop.see_customers(person.page, f"#customer={id}")
    expect(_detail(person.page)).to_be_visible()
    shop.tally.customers.delete(f"/customers/{id}")
    expect(person.page.get_by_text(f"There is no customer {id}")).to_be_visible()
    expect(_detail(person.page)).to_be_hidden()
    person.expects("404")
    person.page.goto("about:blank")
    person.complaints.clear()  # it was asked for again and again


def test_names_are_text_whatever_they_look_like(person: Person, shop: Shop) -> None:
    name = "<img src=x onerror=alert(1)><b>bold</b>"
    shop.see_customers(person.page, f"#customer={shop.customer(name)}")
    expect(person.page.locator("#customer-name")).to_have_text(f"{shop.mark} {name}")
    person.page.get_by_role("button", name="Delete customer").click()
    expect(person.page.get_by_role("dialog")).to_contain_text(name)
    expect(person.page.locator("main img, main b, dialog img")).to_have_count(0)


def test_on_a_phone_the_customer_takes_the_lists_place_and_gives_it_back(
    window: OpenWindow, shop: Shop
) -> None:
    person = window(viewport={"width": 360, "height": 740})
    shop.customer("Ada")
    shop.see_customers(person.page)
    link = person.page.get_by_role("link", name=f"{shop.mark} Ada")
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
    """The consumer that will apply it is stopped for a while: the page waits for it."""
    page = person.page
    account = shop.account("Lakeside", 2933)
    shop.see_customers(page, f"#customer={shop.customer('Ada', account)}")
    consumers = [name for name in shop.tally.pids() if name.startswith("accounts-consumer")]
    for name in consumers:
        shop.tally.kill(name, signal.SIGSTOP)
    try:
        _record(page, "10.67")
        expect(page.locator("#invoices tbody tr")).to_have_count(1)
        with page.expect_request(lambda request: "tally-after" in request.headers):
            page.get_by_role("link", name=f"account {account}").click()
        assert "after" not in page.url
    finally:
        for name in consumers:
            shop.tally.kill(name, signal.SIGCONT)
    expect(page.locator("#account-revenue")).to_have_text("40.00")
