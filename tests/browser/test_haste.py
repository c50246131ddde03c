"""A person in a hurry clicks twice, goes back, and looks at something else before an answer comes."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from support.browser import OpenWindow, Person
from support.shop import Shop
from support.waiting import eventually

PERSIAN = "\u06f1\u066c\u06f2\u06f3\u06f4\u066b\u06f5\u06f0"  # 1,234.50
UNANSWERED = "The customers service does not answer. Send it again: it is recorded once."
NEXT_PICTURE = "() => new Promise(requestAnimationFrame)"
COUNT_ANNOUNCED = """() => {
    window.announced = [];
    new MutationObserver(() => announced.push(document.getElementById("announce").textContent))
        .observe(document.getElementById("announce"), { childList: true });
}"""


def _field(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True).and_(page.locator(":visible"))


def _file(person: Person, shop: Shop, account: str) -> Locator:
    """The dialog with a file of one invoice, ready to be imported."""
    page = person.page
    content = f"customer,date,amount,reference\n{shop.mark} Ada,2024-01-31,5,R-1\n".encode()
    shop.see_customers(page)
    page.get_by_role("button", name="Import", exact=True).click()
    dialog = page.get_by_role("dialog", name="Import a file")
    dialog.locator("input[type=file]").set_input_files(
        {"name": "a.csv", "mimeType": "text/csv", "buffer": content}
    )
    dialog.get_by_label("Account", exact=True).fill(account)
    expect(dialog.get_by_role("button", name="Import 1 invoice")).to_be_enabled()
    return dialog


class Held:
    """Requests to a path with this ending that are held back until `release` or `lose`."""

    def __init__(self, page: Page, path: str, method: str = "GET") -> None:
        self._page, self._method = page, method
        self.holds = True
        self.routes: list[Route] = []
        page.route(lambda url: urlsplit(url).path.endswith(path), self._hold)

    def _hold(self, route: Route) -> None:
        if self.holds and route.request.method == self._method:
            self.routes.append(route)
        else:
            route.continue_()

    def arrived(self) -> None:
        """Wait until there is one."""
        eventually(lambda: self._page.evaluate("true") and self.routes)

    def release(self) -> None:
        """Let them through, and later ones too."""
        self.holds = False
        for route in self.routes:
            route.continue_()

    def lose(self) -> None:
        """Have them fail, and let later ones through."""
        self.holds = False
        for route in self.routes:
            route.abort()


# --- going back --------------------------------------------------------------------------------


def test_the_fields_over_the_invoices_say_what_is_shown_when_one_goes_back(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("Harbour")
    id = shop.customer("Ada", account)
    for day in ("2025-03-01", "2025-01-01"):
        shop.invoice(id, 100, day)
    shop.see_customers(page, f"#invoices&account={account}")
    days = page.locator("#all-invoices tbody td.date")
    expect(days).to_have_text(["Jan 1, 2025", "Mar 1, 2025"])
    _field(page, "From").fill("2025-02-01")
    expect(days).to_have_text(["Mar 1, 2025"])
    page.go_back()
    expect(days).to_have_text(["Jan 1, 2025", "Mar 1, 2025"])
    expect(_field(page, "From")).to_have_value("")
    _field(page, "Sort by").focus()
    _field(page, "Sort by").select_option("Latest date first")
    expect(days).to_have_text(["Mar 1, 2025", "Jan 1, 2025"])
    page.go_back()
    expect(days).to_have_text(["Jan 1, 2025", "Mar 1, 2025"])
    expect(_field(page, "Sort by")).to_have_value("")


def test_the_fields_over_the_customers_say_what_is_shown_when_one_goes_back(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("Harbour")
    shop.customer("Ada", account)
    shop.customer("Bo")
    shop.see_customers(page)
    names = page.locator("#customers tbody th a")
    both = [f"{shop.mark} Bo", f"{shop.mark} Ada"]
    expect(names).to_have_text(both)
    filter = page.get_by_label("Only of the account")
    filter.fill(f"{shop.mark} har")
    page.get_by_role("option", name=f"{shop.mark} Harbour").click()
    expect(names).to_have_text(both[1:])
    page.go_back()
    expect(names).to_have_text(both)
    expect(filter).to_have_value("")
    _field(page, "Sort by").select_option("By name")
    expect(names).to_have_text(both[::-1])
    page.get_by_label("Search customers").fill(f"{shop.mark} bo")
    expect(names).to_have_text(both[:1])
    page.go_back()
    expect(names).to_have_text(both)
    expect(page.get_by_label("Search customers")).to_have_value(shop.mark)


def test_the_months_that_are_written_are_those_that_are_shown_when_one_goes_back(
    person: Person, shop: Shop
) -> None:
    page, account = person.page, shop.account("one", 100)
    shop.see_accounts(page, f"#account={account}&period=2025-01..2026-03")
    title = page.locator("#revenue-title")
    expect(title).to_have_text("Revenue, Jan 2025 to Mar 2026")
    page.get_by_label("First month").fill("2026-01")
    expect(title).to_have_text("Revenue, Jan 2026 to Mar 2026")
    page.go_back()
    expect(title).to_have_text("Revenue, Jan 2025 to Mar 2026")
    expect(page.get_by_label("First month")).to_have_value("2025-01")


def test_each_view_of_the_customers_page_has_a_title_of_its_own(person: Person, shop: Shop) -> None:
    page, id = person.page, shop.customer("Ada")
    shop.see_customers(page, f"#customer={id}")
    expect(page).to_have_title(f"{shop.mark} Ada · Tally")
    page.get_by_role("link", name="Invoices", exact=True).click()
    expect(page).to_have_title("Invoices · Tally")
    page.get_by_role("link", name="All customers").click()
    expect(page).to_have_title("Customers · Tally")


# --- clicking twice ----------------------------------------------------------------------------


def test_two_clicks_on_next_turn_one_page_and_one_leads_back(person: Person, shop: Shop) -> None:
    page, names = person.page, [f"{shop.mark} {number:02}" for number in range(30)]
    shop.tally.customers.post("/customers/batch", [{"name": name, "account_id": "1"} for name in names])
    shop.see_customers(page)
    links = page.locator("#customers tbody th a")
    expect(links).to_have_text(names[:4:-1])
    page.get_by_role("button", name="Next").evaluate("button => { button.click(); button.click(); }")
    expect(links).to_have_text(names[4::-1])
    page.get_by_role("button", name="Previous").click()
    expect(links).to_have_text(names[:4:-1])


def test_two_clicks_on_change_open_one_form(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("one")
    shop.see_accounts(page, f"#account={account}")
    expect(page.locator("#account-name")).to_have_text(f"{shop.mark} one")
    page.get_by_role("button", name="Change").evaluate("button => { button.click(); button.click(); }")
    dialog = page.get_by_role("dialog", name=f"Change {shop.mark} one")
    dialog.get_by_label("Name", exact=True).fill(f"{shop.mark} two")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#account-name")).to_have_text(f"{shop.mark} two")
    expect(page.get_by_role("dialog", include_hidden=True)).to_have_count(0)


def test_two_clicks_on_more_show_each_change_once(person: Person, shop: Shop) -> None:
    page, id = person.page, shop.customer("Ada")
    invoice = shop.invoice(id, 1)
    for cents in range(2, 112):
        shop.tally.customers.request("PATCH", f"/invoices/{invoice}", {"purchase_price_cents": cents})
    shop.see_customers(page, f"#customer={id}")
    page.get_by_role("button", name=f"Actions for invoice {invoice}").click()
    page.get_by_role("menuitem", name="History").click()
    history = page.get_by_role("dialog", name="History of")
    expect(history.get_by_role("listitem")).to_have_count(100)
    more = history.get_by_role("button", name="More")
    more.evaluate("button => { button.click(); button.click(); }")
    expect(more).to_be_hidden()
    page.evaluate(NEXT_PICTURE)
    expect(history.get_by_role("listitem")).to_have_count(111)


def test_two_clicks_on_delete_ask_the_service_once(person: Person, shop: Shop) -> None:
    page, id = person.page, shop.customer("Ada")
    shop.invoice(id, 100)
    shop.see_customers(page, f"#customer={id}")
    page.get_by_role("button", name="More for the customer").click()
    page.get_by_role("menuitem", name="Delete customer").click()
    held = Held(page, f"/customers/{id}", "DELETE")
    delete = page.get_by_role("button", name="Delete customer", exact=True)
    delete.evaluate("button => { button.click(); button.click(); }")
    held.arrived()
    page.evaluate(NEXT_PICTURE)
    assert len(held.routes) == 1
    held.release()
    expect(page.locator("#announce")).to_contain_text("deleted")


# --- something else meanwhile ------------------------------------------------------------------


def test_until_a_customer_is_there_nothing_of_the_one_before_is_shown(person: Person, shop: Shop) -> None:
    page, (one, other) = person.page, [shop.customer(name) for name in ("Ada", "Bo")]
    shop.see_customers(page, f"#customer={one}")
    expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} Ada")
    held = Held(page, f"/customers/{other}/summary")
    page.evaluate(f"location.hash = '#customer={other}'")
    held.arrived()
    expect(page.locator("#detail")).to_be_hidden()
    held.release()
    expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} Bo")
    expect(page.locator("#customer-name")).to_be_focused()


@pytest.mark.parametrize("comes", ["an answer", "none"])
def test_an_invoice_on_its_way_leaves_the_next_customers_form_alone(
    person: Person, shop: Shop, comes: str
) -> None:
    page, (one, other) = person.page, [shop.customer(name) for name in ("Ada", "Bo")]
    shop.see_customers(page, f"#customer={one}")
    held = Held(page, "/invoices", "POST")
    _field(page, "Amount").fill("5")
    _field(page, "Amount").press("Enter")
    held.arrived()
    page.evaluate(f"location.hash = '#customer={other}'")
    expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} Bo")
    expect(_field(page, "Amount")).to_have_value("")
    _field(page, "Amount").fill("7")
    _field(page, "Reference (may be empty)").fill(f"{shop.mark} 7")
    if comes == "none":
        held.lose()
        line = page.locator("#held p")
        expect(line).to_contain_text(f"Not recorded: Invoice of 5.00 of {shop.mark} Ada. {UNANSWERED}")
        expect(page.locator("#invoice [role=alert]")).to_have_text("")
        person.expects("ERR_FAILED")
        line.get_by_role("button", name="Close").click()
        expect(line).to_have_count(0)
        expect(page.get_by_role("main")).to_be_focused()
    else:
        held.release()
        expect(page.locator("#announce")).to_have_text("Invoice of 5.00 recorded")
        expect(_field(page, "Reference (may be empty)")).to_be_focused()
    expect(_field(page, "Amount")).to_have_value("7")
    _field(page, "Amount").press("Enter")
    eventually(lambda: shop.invoices(other) == [700])
    if comes == "none":
        page.evaluate(f"location.hash = '#customer={one}'")
        expect(_field(page, "Amount")).to_have_value("5")
        _field(page, "Amount").press("Enter")
    eventually(lambda: shop.invoices(one) == [500])


def test_an_earlier_question_that_fails_leaves_the_suggestions_alone(person: Person, shop: Shop) -> None:
    page = person.page
    shop.account("Harbour")
    shop.see_customers(page)
    page.get_by_role("button", name="New customer").click()
    held = Held(page, "/accounts/names")
    _field(page, "Account").fill(f"{shop.mark} h")
    held.arrived()
    held.holds = False
    _field(page, "Account").fill(f"{shop.mark} harb")
    option = page.get_by_role("option", name=f"{shop.mark} Harbour")
    expect(option).to_be_visible()
    with page.expect_event("requestfailed"):
        held.lose()
    page.evaluate(NEXT_PICTURE)
    expect(option).to_be_visible()
    expect(page.get_by_text("does not answer: enter")).to_have_count(0)
    person.expects("ERR_FAILED")


def test_a_file_is_imported_over_a_slow_line(person: Person, shop: Shop) -> None:
    """It takes longer than other calls may."""
    page, account = person.page, shop.account("Harbour")
    rows = [f"{shop.mark} Ada,2024-01-31,{number},R-{number}\n" for number in range(1, 8_000)]
    content = "customer,date,amount,reference\n" + "".join(rows)
    file: FilePayload = {"name": "a.csv", "mimeType": "text/csv", "buffer": content.encode()}
    shop.see_customers(page)
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
    line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": 25_000})
    page.get_by_role("button", name="Import", exact=True).click()
    dialog = page.get_by_role("dialog", name="Import a file")
    dialog.locator("input[type=file]").set_input_files(file)
    said = dialog.get_by_role("status").first
    expect(said).to_have_text("Choose the account that the rows belong to.")
    line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    dialog.get_by_label("Account", exact=True).fill(account)
    expect(said).to_have_text("7,999 rows: 7,999 invoices to record")


def test_while_a_file_is_imported_nothing_of_it_can_be_changed(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    dialog = _file(person, shop, account)
    held = Held(page, "/imports", "POST")
    dialog.get_by_role("button", name="Import 1 invoice").click()
    held.arrived()
    assert dialog.get_by_label("Amount column").evaluate("select => Boolean(select.closest('[inert]'))")
    held.release()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("1 invoice recorded")
    expect(page.get_by_role("link", name=f"{shop.mark} Harbour").last).to_be_visible()


def test_a_form_that_was_left_comes_back_when_what_it_sent_is_refused(person: Person, shop: Shop) -> None:
    page = person.page
    shop.see_customers(page)
    page.get_by_role("button", name="New customer").click()
    _field(page, "Name").fill(f"{shop.mark} Ada")
    _field(page, "Account").fill("1")
    held = Held(page, "/customers", "POST")
    _field(page, "Account").press("Enter")
    held.arrived()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    held.lose()
    dialog = page.get_by_role("dialog", name="New customer")
    expect(dialog.get_by_role("alert")).to_have_text(UNANSWERED)
    expect(_field(page, "Name")).to_have_value(f"{shop.mark} Ada")
    dialog.get_by_role("button", name="Record customer").click()
    expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} Ada")
    person.expects("ERR_FAILED")


def test_an_import_that_was_left_comes_back_when_nobody_answers(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("Harbour")
    dialog = _file(person, shop, account)
    held = Held(page, "/imports", "POST")
    dialog.get_by_role("button", name="Import 1 invoice").click()
    held.arrived()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    held.lose()
    expect(dialog.get_by_role("alert").last).to_have_text(UNANSWERED)
    dialog.get_by_role("button", name="Import 1 invoice").click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("1 invoice recorded")
    person.expects("ERR_FAILED")


def test_a_deletion_that_is_sent_takes_the_focus_from_nobody(person: Person, shop: Shop) -> None:
    """The button that takes it back has the focus, and goes."""
    page, id = person.page, shop.customer("Ada")
    invoice = shop.invoice(id, 100)
    page.clock.install()
    shop.see_customers(page, f"#customer={id}")
    page.get_by_role("button", name=f"Actions for invoice {invoice}").click()
    page.get_by_role("menuitem", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    held = Held(page, f"/invoices/{invoice}", "DELETE")
    page.clock.run_for(8_000)
    held.arrived()
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()
    held.release()
    expect(page.locator("#held p")).to_have_count(0)
    expect(page.locator("#customer-name")).to_be_focused()


# --- what is said ------------------------------------------------------------------------------


def test_what_happens_twice_is_announced_twice(person: Person, shop: Shop) -> None:
    page, id = person.page, shop.customer("Ada")
    shop.see_customers(page, f"#customer={id}")
    expect(page.locator("#customer-name")).to_have_text(f"{shop.mark} Ada")
    page.evaluate(COUNT_ANNOUNCED)
    for number in (1, 2):
        _field(page, "Amount").fill("5")
        _field(page, "Amount").press("Enter")
        expect(page.locator("#entries tbody tr")).to_have_count(number)
    assert page.evaluate("announced") == ["Invoice of 5.00 recorded"] * 2


def test_a_history_is_of_the_name_that_the_row_has(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("one")
    shop.see_accounts(page)
    row = page.locator("#accounts tbody th a")
    expect(row).to_have_text(f"{shop.mark} one")
    shop.tally.accounts.request("PATCH", f"/accounts/{account}", {"name": f"{shop.mark} two"})
    expect(row).to_have_text(f"{shop.mark} two")
    page.get_by_role("button", name=f"More for account {account}").click()
    page.get_by_role("menuitem", name="History").click()
    expect(page.get_by_role("dialog", name=f"History of {shop.mark} two")).to_be_visible()


def test_a_customer_has_one_name_on_an_accounts_page_after_it_was_changed(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("one", 100)
    (id,) = shop.customers()
    shop.see_accounts(page, f"#account={account}")
    name = page.locator("#invoices td a")
    expect(name).to_have_text(f"{shop.mark} Customer 1")
    shop.tally.customers.request("PATCH", f"/customers/{id}", {"name": f"{shop.mark} Eve"})
    expect(page.locator("#account-customers th a")).to_have_text(f"{shop.mark} Eve")
    expect(name).to_have_text(f"{shop.mark} Eve")


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_an_account_is_opened_on_the_day_of_where_one_is(window: OpenWindow, shop: Shop, zone: str) -> None:
    """One of these two zones has another day than UTC, whenever this runs."""
    page, account = window(timezone_id=zone).page, shop.account("one")
    opened = shop.tally.accounts.get(f"/accounts/{account}")["account"]["created_date"]
    shop.see_accounts(page, f"#account={account}")
    page.get_by_role("button", name="More for this account").click()
    page.get_by_role("menuitem", name="History").click()
    told = page.get_by_role("dialog", name="History of").get_by_role("listitem").locator(".soft")
    day = ",".join(told.inner_text().split(",")[:2]).strip()
    assert datetime.fromisoformat(opened).astimezone(UTC).strftime("%Y") in day
    expect(page.locator("#account-about")).to_contain_text(f"opened on {day}")


def test_amounts_in_other_digits_are_written_in_them_and_can_be_changed(
    window: OpenWindow, shop: Shop
) -> None:
    page, id = window(locale="fa-IR").page, shop.customer("Ada")
    invoice = shop.invoice(id, 123_450)
    shop.see_customers(page, f"#customer={id}")
    expect(page.locator("#customer-revenue")).to_have_text(PERSIAN)
    page.get_by_role("button", name=f"Actions for invoice {invoice}").click()
    page.get_by_role("menuitem", name="Change").click()
    dialog = page.get_by_role("dialog", name=f"Change invoice {invoice}")
    dialog.get_by_label("Date of purchase").fill("2026-01-07")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert shop.invoices(id) == [123_450]


def test_who_comes_too_late_to_change_an_account_keeps_what_is_written(person: Person, shop: Shop) -> None:
    page, account = person.page, shop.account("one", owner="bruno")
    shop.see_accounts(page, f"#account={account}")
    page.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog", name=f"Change {shop.mark} one")
    expect(dialog).to_be_visible()
    shop.tally.accounts.request("PATCH", f"/accounts/{account}", {"owned_by": "cleo"})
    dialog.get_by_label("Description").fill("in the hills")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_have_text(
        "Somebody else has changed this meanwhile: the owner is now “cleo”."
        " Cancel to keep that, or save once more to have yours."
    )
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#account-description")).to_have_text("in the hills")
    person.expects("412")
