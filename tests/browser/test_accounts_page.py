"""A person's ways through the accounts page."""

from pathlib import Path

import redis
from playwright.sync_api import Browser, Locator, Page, expect

from support.browser import OpenWindow, Person
from support.redis_process import RedisProcess
from support.shop import Shop
from support.tally import running
from support.waiting import eventually


def _row(page: Page, name: str) -> Locator:
    return page.locator("#accounts tbody tr", has=page.get_by_role("button", name=name))


def _names(page: Page) -> Locator:
    return page.locator("#accounts tbody th button")


def _head(page: Page, name: str) -> Locator:
    return page.locator("#accounts thead").get_by_role("columnheader", name=name)


def test_accounts_are_shown_with_owner_customers_and_revenue_as_money(person: Person, shop: Shop) -> None:
    one = shop.account("one", 2933, 123_456_789_005, owner="bruno")
    shop.account("two", 7)
    shop.see_accounts(person.page)
    expect(_row(person.page, "one").locator("td:visible")).to_have_text(
        [one, "bruno", "2", "1,234,567,919.38"]
    )
    expect(_row(person.page, "two").locator("td:visible").last).to_have_text("0.07")


def test_totals_move_while_one_watches_without_a_reload(person: Person, shop: Shop) -> None:
    account = shop.account("one", 100)
    customer = shop.customer("late", account)
    shop.see_accounts(person.page)
    revenue = _row(person.page, "one").locator("td").last
    expect(revenue).to_have_text("1.00")
    person.page.evaluate("window.loadedOnce = true")
    before = person.page.locator("#total-revenue").inner_text()
    shop.invoice(customer, 250)
    expect(revenue).to_have_text("3.50")
    expect(person.page.locator("#total-revenue")).not_to_have_text(before)
    assert person.page.evaluate("window.loadedOnce")


def test_an_account_that_overtakes_another_keeps_the_focus_and_its_row(person: Person, shop: Shop) -> None:
    shop.account("first", 500)
    second = shop.account("second", 100)
    shop.see_accounts(person.page)
    expect(_names(person.page)).to_have_text([f"{shop.mark} first", f"{shop.mark} second"])
    button = _names(person.page).nth(1)
    button.focus()
    button.evaluate("button => { window.before = button; }")
    shop.invoice(shop.customer("rich", second), 1000)
    expect(_names(person.page)).to_have_text([f"{shop.mark} second", f"{shop.mark} first"])
    assert person.page.evaluate("document.activeElement === window.before")


def test_an_account_is_found_by_a_part_of_its_name_or_by_its_id(person: Person, shop: Shop) -> None:
    account = shop.account("Öresund Cykel")
    shop.account("Other")
    shop.see_accounts(person.page)
    expect(_names(person.page)).to_have_count(2)
    for search in ("ÖRE", "öresund", "sund cyk", account):
        person.page.get_by_label("Search accounts").fill(search)
        expect(_row(person.page, f"{shop.mark} Öresund Cykel")).to_be_visible()
        expect(_row(person.page, f"{shop.mark} Other")).to_be_hidden()


def test_what_is_not_found_is_said_to_eyes_and_to_ears(person: Person, shop: Shop) -> None:
    shop.account("one")
    shop.see_accounts(person.page)
    expect(person.page.locator("#announce")).to_have_text("1 account found")
    person.page.get_by_label("Search accounts").fill(f"{shop.mark} nothing")
    expect(person.page.get_by_text("No account matches.")).to_be_visible()
    expect(person.page.locator("#announce")).to_have_text("0 accounts found")


def test_a_click_on_a_head_sorts_and_a_second_one_turns_the_order(person: Person, shop: Shop) -> None:
    shop.account("b", 300, owner="x")
    shop.account("a", 100, 100, owner="z")
    shop.account("c", owner="y")
    shop.see_accounts(person.page)
    expected = {"Revenue": "bac", "Account": "abc", "Owner": "bca", "Customers": "abc", "Id": "bac"}
    expect(_names(person.page)).to_have_count(3)
    for head, order in expected.items():
        falls = head in ("Revenue", "Customers")
        if head != "Revenue":  # it is sorted by at first
            _head(person.page, head).get_by_role("button").click()
        expect(_names(person.page)).to_have_text([f"{shop.mark} {name}" for name in order])
        expect(_head(person.page, head)).to_have_attribute(
            "aria-sort", "descending" if falls else "ascending"
        )
        _head(person.page, head).get_by_role("button").press("Enter")
        expect(_names(person.page)).to_have_text([f"{shop.mark} {name}" for name in order[::-1]])
        expect(_head(person.page, head)).to_have_attribute(
            "aria-sort", "ascending" if falls else "descending"
        )
    expect(person.page.locator("#accounts [aria-sort]")).to_have_count(1)


def test_many_accounts_are_paged(person: Person, shop: Shop) -> None:
    for number in range(30):
        shop.account(f"{number:02}")
    shop.see_accounts(person.page)
    _head(person.page, "Account").get_by_role("button").click()
    expect(person.page.get_by_text("1 to 25 of 30")).to_be_visible()
    expect(person.page.get_by_role("button", name="Previous")).to_have_attribute("aria-disabled", "true")
    person.page.get_by_role("button", name="Next").click()
    expect(person.page.get_by_text("26 to 30 of 30")).to_be_visible()
    expect(_names(person.page)).to_have_text([f"{shop.mark} {number}" for number in range(25, 30)])
    expect(person.page.get_by_role("button", name="Next")).to_be_focused()
    person.page.get_by_role("button", name="Previous").click()
    expect(person.page.get_by_text("1 to 25 of 30")).to_be_visible()


def test_the_chart_shows_the_largest_accounts_to_scale(person: Person, shop: Shop) -> None:
    shop.account("giant", 10**12)
    shop.account("half", 5 * 10**11)
    shop.see_accounts(person.page)
    bars = person.page.get_by_role("region", name="Largest accounts").get_by_role("listitem")
    expect(bars.nth(0)).to_contain_text(f"{shop.mark} giant")
    expect(bars.nth(0)).to_contain_text("10,000,000,000.00")
    widths = [bars.nth(index).locator(".bar").evaluate("bar => bar.style.width") for index in (0, 1)]
    assert widths == ["100%", "50%"]


def test_one_accounts_customers_are_opened_and_closed_by_keyboard(person: Person, shop: Shop) -> None:
    account = shop.account("one", 2933, 67, owner="bruno")
    shop.see_accounts(person.page)
    _names(person.page).first.press("Enter")
    drawer = person.page.get_by_role("dialog", name=f"{shop.mark} one")
    expect(drawer.get_by_text(f"Account {account}, owned by bruno")).to_be_visible()
    expect(drawer.locator("tbody tr")).to_have_count(2)
    expect(drawer.locator("tbody td:last-child")).to_have_text(["29.33", "0.67"])
    expect(drawer.locator("#account-revenue")).to_have_text("30.00")
    shop.invoice(shop.customer("Customer 3", account), 100)
    expect(drawer.locator("tbody td:last-child")).to_have_text(["29.33", "0.67", "1.00"])
    expect(drawer.locator("#account-count")).to_have_text("3")
    person.page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(_names(person.page).first).to_be_focused()
    person.page.go_back()
    expect(drawer).to_be_visible()


def test_one_accounts_customers_are_sorted_by_what_they_spent(person: Person, shop: Shop) -> None:
    account = shop.account("many", *range(1, 53))
    shop.see_accounts(person.page, f"#account={account}")
    customers = person.page.locator("#account-customers")
    names = customers.locator("tbody th")
    expect(names.first).to_contain_text("Customer 1")
    customers.get_by_role("button", name="Revenue").click()
    expect(names.first).to_contain_text("Customer 52")
    expect(customers.locator("[aria-sort]")).to_have_text(["Revenue"])
    person.page.get_by_role("dialog").get_by_role("button", name="Next").click()
    expect(names).to_have_text([f"{shop.mark} Customer 2", f"{shop.mark} Customer 1"])
    customers.get_by_role("button", name="Id").click()
    expect(names.first).to_have_text(f"{shop.mark} Customer 1")


def test_from_an_accounts_customer_it_is_one_step_to_the_invoices(person: Person, shop: Shop) -> None:
    account = shop.account("one", 2933)
    shop.see_accounts(person.page, f"#account={account}")
    person.page.get_by_role("link", name=f"{shop.mark} Customer 1").click()
    expect(person.page.get_by_role("heading", name=f"{shop.mark} Customer 1")).to_be_visible()
    person.page.get_by_role("link", name=f"{shop.mark} one").click()
    expect(person.page.get_by_role("dialog", name=f"{shop.mark} one")).to_be_visible()


def test_an_account_that_is_not_there_is_said_to_be_missing(person: Person, shop: Shop) -> None:
    person.page.goto(f"http://127.0.0.1:{shop.tally.accounts.port}/#account=999999")
    dialog = person.page.get_by_role("dialog", name="Account 999999")
    expect(dialog).to_contain_text("There is no account 999999")
    expect(dialog.get_by_role("button")).to_have_text(["Close"])  # nothing to turn the pages of
    person.page.goto(f"http://127.0.0.1:{shop.tally.accounts.port}/#account={shop.account('there', 5)}")
    expect(person.page.get_by_role("dialog")).to_contain_text("1 to 1 of 1")
    person.expects("404")


def test_names_are_text_whatever_they_look_like(person: Person, shop: Shop) -> None:
    name = "<img src=x onerror=alert(1)><b>bold</b> {login} &amp;"
    shop.account(name, 1, owner="<script>alert(1)</script>")
    shop.see_accounts(person.page)
    expect(_names(person.page)).to_have_text([f"{shop.mark} {name}"])
    expect(person.page.locator("main img, main b, main script")).to_have_count(0)


def test_cents_become_money_without_losing_one(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    script = "async (all) => { const { money } = await import('/static/money.js'); return all.map(money); }"
    shown = {"0": "0.00", "5": "0.05", "-5": "\u22120.05", "2933": "29.33",
             "123456789012345678901": "1,234,567,890,123,456,789.01"}  # fmt: skip
    assert person.page.evaluate(script, [*shown]) == [*shown.values()]


def test_money_is_written_as_the_reader_writes_it(window: OpenWindow, shop: Shop) -> None:
    person = window(locale="de-DE")
    shop.account("one", 123_456_789)
    shop.see_accounts(person.page)
    expect(_row(person.page, "one").locator("td").last).to_have_text("1.234.567,89")


def test_an_account_is_opened_by_keyboard_alone_and_shown(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    person.page.get_by_role("button", name="New account").press("Enter")
    expect(person.page.get_by_label("Name", exact=True)).to_be_focused()
    for written in (f"{shop.mark} Søndre", "bruno", "The one by the sea"):
        person.page.keyboard.type(written)
        person.page.keyboard.press("Tab")
    person.page.keyboard.press("Shift+Tab")
    person.page.keyboard.press("Enter")
    drawer = person.page.get_by_role("dialog", name=f"{shop.mark} Søndre")
    expect(drawer).to_contain_text("owned by bruno")
    expect(drawer).to_contain_text("The one by the sea")
    expect(drawer).to_contain_text("No customers yet.")
    id = person.page.url.partition("#account=")[2]
    assert shop.tally.accounts.get(f"/accounts/{id}")["account"]["owned_by"] == "bruno"
    person.page.keyboard.press("Escape")
    expect(_row(person.page, "Søndre")).to_be_visible()
    expect(person.page.get_by_role("button", name="New account")).to_be_focused()


def test_what_is_wrong_with_an_account_is_said_at_the_field(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    person.page.get_by_role("button", name="New account").click()
    name, owner = (person.page.get_by_label(label, exact=True) for label in ("Name", "Owner"))
    person.page.get_by_role("button", name="Open account").click()
    expect(name).to_have_accessible_description("Enter the account's name.")
    expect(owner).to_have_accessible_description("Enter the name of the user who owns the account.")
    expect(name).to_be_focused()
    name.fill(f"{shop.mark} one")
    owner.fill("a\x07b")
    person.page.get_by_role("button", name="Open account").click()
    expect(owner).to_have_accessible_description("Expected no control characters.")
    expect(name).to_have_accessible_description("")
    person.page.get_by_role("button", name="Cancel").click()
    expect(person.page.get_by_role("dialog")).to_have_count(0)
    expect(person.page.locator("#accounts tbody tr")).to_have_count(0)
    person.expects("422")


def test_an_account_is_deleted_with_its_customers_after_a_question(person: Person, shop: Shop) -> None:
    id, other = shop.account("one", 2933, 100), shop.account("two")
    customers = {each["customer_id"] for each in shop.tally.accounts.get(f"/accounts/{id}")["customers"]}
    assert customers <= shop.customers()
    shop.see_accounts(person.page)
    for name, said in (
        ("one", "2 customers go with the account, and all of their invoices, 30.33 in all."),
        ("two", "The account has no customers. This can't be undone."),
    ):
        person.page.get_by_role("button", name=f"{shop.mark} {name}").first.click()
        person.page.get_by_role("button", name="Delete account").click()
        question = person.page.get_by_role("dialog", name=f"Delete {shop.mark} {name}?")
        expect(question).to_contain_text(said)
        expect(question.get_by_role("button", name="Cancel")).to_be_focused()
        question.get_by_role("button", name="Delete account").click()
        expect(person.page.get_by_role("dialog")).to_have_count(0)
        expect(_row(person.page, name)).to_have_count(0)
        expect(person.page.get_by_label("Search accounts")).to_be_focused()
    assert {each["account"]["id"] for each in shop.tally.accounts.get("/accounts")}.isdisjoint({id, other})
    eventually(lambda: customers.isdisjoint(shop.customers()))
    # A look at the account may have been on its way when it went.
    person.complaints = [each for each in person.complaints if "404" not in each]


def test_an_account_that_got_a_customer_meanwhile_is_not_deleted_without_a_word(
    person: Person, shop: Shop
) -> None:
    id = shop.account("one")
    shop.see_accounts(person.page, f"#account={id}")
    person.page.get_by_role("button", name="Delete account").click()
    question = person.page.get_by_role("dialog", name=f"Delete {shop.mark} one?")
    shop.customer("late", id)
    eventually(lambda: shop.tally.accounts.get(f"/accounts/{id}")["customers"])
    question.get_by_role("button", name="Delete account").click()
    expect(question.get_by_role("alert")).to_have_text(
        "The account has customers by now: look at them first."
    )
    question.get_by_role("button", name="Cancel").click()
    expect(person.page.get_by_role("dialog", name=f"{shop.mark} one")).to_contain_text("1 to 1 of 1")
    person.expects("409")


def test_the_strip_tells_the_state_and_on_request_the_actors(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    strip = person.page.get_by_role("region", name="State of the accounts service")
    for text in ("All is well", "Redis reachable", "Lag 0", "Outbox 0", "Dead letters 0", "Actors 4 of 4"):
        expect(strip).to_contain_text(text)
    strip.locator("summary").press("Enter")
    actors = strip.get_by_role("row").filter(has_text="accounts-consumer-2")
    expect(actors.get_by_role("cell")).to_have_text(["running", "0"])


def test_an_empty_tally_says_how_to_begin_and_a_dead_one_is_waited_for(
    browser: Browser, tmp_path: Path
) -> None:
    with running(tmp_path) as tally:
        person = Person(browser)
        page, notice = person.page, person.page.locator("#strip .notice")
        page.goto(f"http://127.0.0.1:{tally.accounts.port}/")
        expect(page.get_by_text("There is no account yet.")).to_be_visible()
        expect(page.locator("#chart")).to_be_hidden()
        tally.accounts.post("/accounts", {"name": "The first", "owned_by": "ana"})
        expect(page.get_by_role("button", name="The first")).to_be_visible()
        assert tally.stop() == 0
        expect(notice).to_have_text("The accounts service does not answer. Trying again…")
        expect(page.locator("#strip")).to_contain_text("No answer")
        expect(page.get_by_role("button", name="The first")).to_be_visible()
        tally.start()
        tally.accounts.post("/accounts", {"name": "The second", "owned_by": "ana"})
        expect(notice).to_be_hidden()
        expect(page.get_by_role("button", name="The second")).to_be_visible()
        expect(page.locator("#strip")).to_contain_text("All is well")
        person.expects("ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
        person.leave()


def test_the_order_that_is_chosen_and_the_one_that_is_shown_are_one(person: Person, shop: Shop) -> None:
    shop.account("a", 5)
    shop.see_accounts(person.page)
    person.page.get_by_label("Sort by").evaluate("box => { box.value = 'name desc'; }")
    person.page.get_by_label("Sort by").dispatch_event("change")
    expect(_head(person.page, "Account")).to_have_attribute("aria-sort", "descending")
    person.page.goto(f"http://127.0.0.1:{shop.tally.customers.port}/")
    person.page.go_back()
    expect(_head(person.page, "Revenue")).to_have_attribute("aria-sort", "descending")
    expect(person.page.locator("#sort")).to_have_value("revenue desc")


def test_without_redis_the_strip_says_that_totals_may_be_behind(browser: Browser, tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        with running(tmp_path, redis_url=server.url) as tally:
            person = Person(browser)
            person.page.goto(f"http://127.0.0.1:{tally.accounts.port}/")
            strip = person.page.locator("#strip")
            expect(strip).to_contain_text("All is well")
            server.kill()
            expect(strip).to_contain_text("Degraded: totals may be behind")
            strip.locator("summary").click()
            expect(strip).to_contain_text("What is recorded is safe")
            server.start()
            expect(strip).to_contain_text("All is well")
            person.leave()
    finally:
        server.kill()


def test_what_can_not_be_applied_shows_in_the_strip(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as tally, redis.Redis.from_url(tally.settings["redis"]["url"]) as client:
        person = Person(browser)
        person.page.goto(f"http://127.0.0.1:{tally.accounts.port}/")
        strip = person.page.locator("#strip")
        expect(strip).to_contain_text("All is well")
        client.xadd("event-stream", {"EventTypeName": "AccountCreated", "Payload": "no JSON"})
        expect(strip).to_contain_text("Degraded")
        expect(strip.locator(".wrong")).to_have_text("2")  # one for each service
        strip.locator("summary").click()
        expect(strip).to_contain_text("2 dead letters wait for a decision")
        expect(person.page.locator("#announce")).to_have_text("accounts service: Degraded")
        person.leave()


def test_revenue_that_no_account_shows_and_numbers_given_twice_are_told(
    browser: Browser, tmp_path: Path
) -> None:
    """Nothing is invisible, or merged, without a word."""
    with running(tmp_path) as tally, redis.Redis.from_url(tally.settings["redis"]["url"]) as client:
        shop, person = Shop(tally), Person(browser)
        shop.invoice(shop.customer("Ada", "4711"), 2933)
        shop.see_accounts(person.page)
        strip = person.page.locator("#strip")
        expect(strip.locator(".notes")).to_contain_text("29.33 of revenue, of 1 customers, is shown nowhere")
        customer = '{"id":"1","account_id":"8","name":"Another","created_date":"2001-01-06T00:00:00Z"}'
        fields = {"EventTypeName": "CustomerCreated", "Payload": customer, "EventId": "customers@0000beef:1"}
        client.xadd("event-stream", fields)
        strip.locator("summary").click()
        expect(strip.locator(".reasons")).to_contain_text(
            "1 customers or accounts were created under a number"
        )
        person.leave()


def test_the_strip_tells_of_other_nodes_where_there_are_any(browser: Browser, tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        address = {"number": 1, "url_accounts": "http://branch.example/accounts"}
        with (
            running(tmp_path / "first", redis_url=server.url) as first,
            running(tmp_path / "second", "--only", "accounts", redis_url=server.url, node=address),
        ):
            person = Person(browser)
            Shop(first).see_accounts(person.page)
            strip = person.page.locator("#strip")
            strip.locator("summary").click()
            row = strip.get_by_role("row").filter(has_text="http://branch.example/accounts")
            expect(row).to_have_text("1http://branch.example/accounts0now")
            expect(strip.get_by_role("row").filter(has_text="0 (here)")).to_be_visible()
            person.leave()
    finally:
        server.kill()
