"""A person uses the accounts page in many ways."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis
from playwright.sync_api import Browser, Locator, Page, expect

from support.browser import OpenWindow, Person, look_over
from support.redis_process import RedisProcess
from support.shop import Shop
from support.tally import running
from support.waiting import eventually


def _row(page: Page, name: str) -> Locator:
    return page.locator("#accounts tbody tr", has=page.get_by_role("link", name=name))


def _names(page: Page) -> Locator:
    return page.locator("#accounts tbody th a")


def _revenue(page: Page, name: str) -> Locator:
    return _row(page, name).locator("td.data")


def _delete(page: Page) -> None:
    page.get_by_role("button", name="More for this account").click()
    page.get_by_role("menuitem", name="Delete account…").click()


def _head(page: Page, name: str) -> Locator:
    return page.locator("#accounts thead").get_by_role("columnheader", name=name)


def test_accounts_are_shown_with_owner_customers_and_revenue_as_money(person: Person, shop: Shop) -> None:
    one = shop.account("one", 2933, 123_456_789_005, owner="bruno")
    shop.account("two", 7)
    shop.see_accounts(person.page)
    expect(_row(person.page, "one").locator("td:visible")).to_have_text(
        [one, "bruno", "2", "", "1,234,567,919.38", re.compile("%$"), "…"]
    )
    expect(_revenue(person.page, "two")).to_have_text("0.07")


def test_totals_move_while_one_watches_without_a_reload(person: Person, shop: Shop) -> None:
    account = shop.account("one", 100)
    customer = shop.customer("late", account)
    shop.see_accounts(person.page)
    revenue = _revenue(person.page, "one")
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
    link = _names(person.page).nth(1)
    link.focus()
    link.evaluate("link => { window.before = link; }")
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
        if head != "Revenue":  # at first the list is sorted by revenue
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


def test_a_bar_in_each_row_is_to_the_scale_of_the_largest(person: Person, shop: Shop) -> None:
    shop.account("giant", 10**12)
    shop.account("half", 5 * 10**11)
    shop.see_accounts(person.page)
    expect(_revenue(person.page, "half")).to_have_text("5,000,000,000.00")
    bars = [_revenue(person.page, name).locator(".bar") for name in ("giant", "half")]
    assert [bar.evaluate("bar => bar.style.width") for bar in bars] == ["100%", "50%"]


def test_each_row_has_a_line_of_its_last_twelve_months(person: Person, shop: Shop) -> None:
    account = shop.account("one")
    customer, today = shop.customer("Ada", account), datetime.now(UTC).date()
    for days, cents in ((0, 300), (60, 500), (800, 7_000)):
        shop.invoice(customer, cents, (today - timedelta(days)).isoformat())
    shop.see_accounts(person.page)
    line = _row(person.page, "one").get_by_role("img")
    expect(line).to_have_accessible_name("Lowest 0.00, highest 5.00, latest 3.00")
    assert len(line.locator("polyline").get_attribute("points").split()) == 12  # type: ignore[union-attr]


def test_one_account_is_looked_at_and_left_by_keyboard(person: Person, shop: Shop) -> None:
    account = shop.account("one", 2933, 67, owner="bruno")
    page = person.page
    shop.see_accounts(page)
    _names(page).first.press("Enter")
    expect(page.get_by_role("heading", name=f"{shop.mark} one")).to_be_focused()
    expect(page).to_have_title(f"{shop.mark} one · Tally")
    expect(page.get_by_text(f"Account {account}, owned by bruno, opened on ")).to_be_visible()
    customers = page.locator("#account-customers tbody")
    expect(customers.locator("td.data")).to_have_text(["29.33", "0.67"])
    expect(customers.locator("td:last-child")).to_have_text(["97.8%", "2.2%"])
    expect(page.locator("#total-revenue")).to_have_text("30.00")
    shop.invoice(shop.customer("Customer 3", account), 100)
    expect(customers.locator("td.data")).to_have_text(["29.33", "1.00", "0.67"])
    expect(page.locator("#total-customers")).to_have_text("3")
    page.get_by_role("link", name="All accounts").press("Enter")
    expect(_names(page).first).to_be_focused()
    expect(page.get_by_label("Search accounts")).to_have_value(shop.mark)
    page.go_back()
    expect(page.get_by_role("heading", name=f"{shop.mark} one")).to_be_visible()


def test_an_account_opens_in_a_new_tab_and_what_one_chose_is_in_the_address(
    person: Person, shop: Shop
) -> None:
    account, page = shop.account("one", 100), person.page
    shop.see_accounts(page)
    page.get_by_role("radio", name="24 months").check()
    with page.context.expect_page() as opened:
        _names(page).first.click(modifiers=["Control"])
    tab = opened.value
    expect(tab.get_by_role("heading", name=f"{shop.mark} one")).to_be_visible()
    expect(tab.get_by_role("radio", name="24 months")).to_be_checked()
    assert tab.url.endswith(f"#account={account}&period=24")
    tab.close()
    page.reload()
    expect(page.get_by_role("radio", name="24 months")).to_be_checked()
    expect(page.get_by_label("Search accounts")).to_have_value(shop.mark)
    expect(_names(page)).to_have_count(1)
    page.go_back()
    expect(page.get_by_role("radio", name="12 months")).to_be_checked()


def test_one_accounts_customers_come_in_the_order_one_chooses(person: Person, shop: Shop) -> None:
    account, page = shop.account("many", *range(1, 53)), person.page
    shop.see_accounts(page, f"#account={account}")
    names = page.locator("#account-customers tbody th")
    expect(names.first).to_have_text(f"{shop.mark} Customer 52")
    section = page.get_by_role("region", name="Customers")
    section.get_by_role("button", name="Next").click()
    expect(names).to_have_text([f"{shop.mark} Customer 2", f"{shop.mark} Customer 1"])
    expect(section).to_contain_text("51 to 52 of 52")
    page.get_by_label("Sort customers by").select_option("By name")
    expect(names).to_have_count(50)
    expect(names.nth(1)).to_have_text(f"{shop.mark} Customer 10")
    page.reload()
    expect(names.nth(1)).to_have_text(f"{shop.mark} Customer 10")
    page.go_back()
    expect(names).to_have_text([f"{shop.mark} Customer 2", f"{shop.mark} Customer 1"])


def test_from_an_accounts_customer_it_is_one_step_to_the_invoices(person: Person, shop: Shop) -> None:
    account = shop.account("one", 2933)
    shop.see_accounts(person.page, f"#account={account}")
    customers = person.page.locator("#account-customers")
    customers.get_by_role("link", name=f"{shop.mark} Customer 1").click()
    expect(person.page.get_by_role("heading", name=f"{shop.mark} Customer 1")).to_be_visible()
    person.page.locator(f"a[href$='#account={account}']").first.click()
    expect(person.page.get_by_role("heading", name=f"{shop.mark} one")).to_be_visible()


def test_an_accounts_latest_invoices_and_credits_are_shown(person: Person, shop: Shop) -> None:
    account, page = shop.account("one", 2933), person.page
    customer = shop.customer("Ada", account)
    shop.invoice(customer, 500, "2026-02-03")
    new = {"customer_id": customer, "credit_date": "2026-02-04", "credited_cents": 120}
    shop.tally.customers.post("/credits", new)
    shop.see_accounts(page, f"#account={account}")
    rows = page.locator("#invoices tbody tr")
    expect(rows).to_have_text([f"Feb 3, 2026{shop.mark} Ada5.00", f"Jan 6, 2026{shop.mark} Customer 129.33"])
    expect(page.locator("#credits tbody tr")).to_have_text([f"Feb 4, 2026{shop.mark} Ada\u22121.20"])
    rows.first.get_by_role("link", name="Ada").click()
    expect(page.get_by_role("heading", name=f"{shop.mark} Ada")).to_be_visible()


def test_without_the_customers_service_an_account_shows_all_but_its_invoices(
    browser: Browser, tmp_path: Path
) -> None:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        with running(tmp_path, "--only", "accounts", redis_url=server.url) as tally:
            person = Person(browser)
            tally.accounts.post("/accounts", {"name": "one", "owned_by": "ana"})
            person.page.goto(f"http://127.0.0.1:{tally.accounts.port}/#account=1")
            latest = person.page.get_by_role("region", name="Latest invoices")
            expect(latest).to_contain_text("The customers service does not answer.")
            expect(person.page.get_by_role("heading", name="one", exact=True)).to_be_visible()
            expect(person.page.get_by_text("No customers yet.")).to_be_visible()
            expect(person.page.locator("#strip .notice")).to_be_hidden()
            person.expects("ERR_CONNECTION_REFUSED")
            person.leave()
    finally:
        server.kill()


def test_revenue_is_shown_by_month_beside_the_year_before(person: Person, shop: Shop) -> None:
    account, page = shop.account("one"), person.page
    customer = shop.customer("Ada", account)
    for date, cents in (
        ("1997-01-31", 10_000),
        ("1997-02-01", 20_000),
        ("1998-01-05", 12_500),
        ("1998-12-31", 50),
    ):
        shop.invoice(customer, cents, date)
    shop.see_accounts(page, f"#account={account}&period=1998-01..1998-03")
    expect(page.locator("#headline")).to_have_text("125.00")
    page.get_by_text("The figures as a table").click()
    rows = page.locator("#chart tbody tr")
    expect(rows).to_have_text(
        ["January 1998125.00100.00+25%", "February 19980.00200.00\u2212100%", "March 19980.000.00\u2013"]
    )
    plot = page.get_by_role("slider", name="Revenue, period by period")
    expect(plot.locator(".bar")).to_have_count(3)
    plot.focus()
    plot.press("Home")
    expect(plot).to_have_attribute("aria-valuetext", "January 1998, 125.00, a year before 100.00 (+25%)")
    plot.press("ArrowRight")
    expect(plot.locator(".tip")).to_contain_text("February 1998")
    page.get_by_role("radio", name="All").check()
    expect(page.locator("#headline")).to_have_text("425.50")
    expect(rows).to_have_count(24)


def test_a_period_is_chosen_by_its_months_and_compared_with_the_one_before(
    person: Person, shop: Shop
) -> None:
    account, page = shop.account("one"), person.page
    customer = shop.customer("Ada", account)
    for date, cents in (("1997-01-31", 10_000), ("1997-02-01", 20_000), ("1998-01-05", 12_500)):
        shop.invoice(customer, cents, date)
    shop.see_accounts(page, f"#account={account}")
    expect(page.get_by_role("radio", name="All")).to_be_checked()  # there were no recent invoices
    expect(page.locator("#change")).to_have_text("")
    page.get_by_role("radio", name="From \u2013 to").check()
    first, last = page.get_by_label("First month"), page.get_by_label("Last month")
    expect(first).to_have_value("1997-01")
    expect(last).to_have_value("1998-01")
    first.fill("1997-02")
    expect(page).to_have_url(re.compile("period=1997-02..1998-01$"))
    last.fill("1997-02")
    expect(page.locator("#headline")).to_have_text("200.00")
    expect(page.locator("#change")).to_have_text("+100% (+100.00) against Jan 1997: 100.00")
    last.fill("1996-02")
    expect(page.get_by_role("alert").filter(has_text="Enter two months")).to_be_visible()
    page.get_by_role("radio", name="This year").check()
    expect(page.locator("#headline")).to_have_text("0.00")
    expect(first).to_be_hidden()


def test_a_pointer_over_a_month_shows_its_figures(person: Person, shop: Shop) -> None:
    account, page = shop.account("one"), person.page
    shop.invoice(shop.customer("Ada", account), 12_500, "1998-01-05")
    shop.see_accounts(page, f"#account={account}&period=1998-01..1998-02")
    plot = page.get_by_role("slider", name="Revenue, period by period")
    expect(plot.locator(".bar")).to_have_count(2)
    plot.locator(".bar").first.hover()
    expect(plot.locator(".tip")).to_have_text("January 1998125.00")
    page.get_by_role("heading", name=f"{shop.mark} one").hover()
    expect(plot.locator(".tip")).to_be_hidden()


def test_an_account_is_changed_and_who_comes_too_late_is_told(person: Person, shop: Shop) -> None:
    account, page = shop.account("one", owner="bruno"), person.page
    shop.see_accounts(page, f"#account={account}")
    page.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog", name=f"Change {shop.mark} one")
    expect(dialog.get_by_label("Owner")).to_have_value("bruno")
    dialog.get_by_label("Name", exact=True).fill(f"{shop.mark} two")
    dialog.get_by_label("Description").fill("by the sea")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=f"{shop.mark} two")).to_be_visible()
    expect(page.locator("#account-about")).to_contain_text("changed once since")
    expect(page.locator("#account-description")).to_have_text("by the sea")
    expect(page.get_by_role("button", name="Change")).to_be_focused()
    page.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog", name=f"Change {shop.mark} two")
    expect(dialog).to_be_visible()  # the dialog has read the account by now
    shop.tally.accounts.request("PATCH", f"/accounts/{account}", {"owned_by": "cleo"})
    dialog.get_by_label("Description").fill("in the hills")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody else has changed this meanwhile: the owner")
    page.keyboard.press("Escape")
    expect(page.locator("#account-about")).to_contain_text("owned by cleo")
    expect(page.locator("#account-description")).to_have_text("by the sea")
    person.expects("412")


def test_an_accounts_history_tells_what_was_changed(person: Person, shop: Shop) -> None:
    account, page = shop.account("one", owner="bruno"), person.page
    shop.see_accounts(page, f"#account={account}")
    change = {"name": f"{shop.mark} two", "owned_by": "cleo", "description": "by the sea"}
    assert shop.tally.accounts.request("PATCH", f"/accounts/{account}", change).status == 200
    more = page.get_by_role("button", name="More for this account")
    more.click()
    page.get_by_role("menuitem", name="History").click()
    history = page.get_by_role("dialog", name="History of")
    entries = history.get_by_role("listitem")
    expect(entries.locator("strong")).to_have_text(["Opened", "Changed"])
    for told in (
        f"Name: {shop.mark} one → {shop.mark} two",
        "Description: none → by the sea",
        "Owner: bruno → cleo",
    ):
        expect(entries.last).to_contain_text(told)
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    page.get_by_role("link", name="All accounts").click()
    page.get_by_role("button", name=f"More for account {account}").click()
    page.get_by_role("menuitem", name="History").click()
    expect(entries).to_have_count(2)


def test_a_menu_closes_when_its_button_scrolls_away_and_not_by_what_scrolled_before(
    window: OpenWindow, shop: Shop
) -> None:
    """The browser tells of a scroll with its next picture: on a busy machine, after the next click."""
    page = window(viewport={"width": 800, "height": 300}).page
    account = shop.account("one")
    shop.see_accounts(page)
    more = page.get_by_role("button", name=f"More for account {account}")
    more.click()
    menu = page.get_by_role("menu")
    expect(menu).to_be_visible()
    page.evaluate("dispatchEvent(new Event('scroll'))")
    expect(menu).to_be_visible()
    page.mouse.wheel(0, -40)
    expect(menu).to_have_count(0)


def test_a_rows_menu_is_used_by_keyboard(person: Person, shop: Shop) -> None:
    account, page = shop.account("one"), person.page
    shop.see_accounts(page)
    more = page.get_by_role("button", name=f"More for account {account}")
    more.press("ArrowDown")
    menu = page.get_by_role("menu")
    expect(menu.get_by_role("menuitem", name="Change…")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(menu.get_by_role("menuitem", name="Delete…")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_have_count(0)
    expect(more).to_be_focused()
    expect(more).to_have_attribute("aria-expanded", "false")
    more.click()
    expect(menu).to_be_visible()
    page.get_by_role("heading", name="Accounts").last.click()
    expect(menu).to_have_count(0)
    more.click()
    menu.get_by_role("menuitem", name="Delete…").click()
    question = page.get_by_role("dialog", name=f"Delete {shop.mark} one?")
    question.get_by_role("button", name="Cancel").click()
    more.click()
    menu.get_by_role("menuitem", name="Change…").click()
    expect(page.get_by_role("dialog", name=f"Change {shop.mark} one")).to_be_visible()


def test_on_paper_there_is_what_is_told_and_nothing_to_press(person: Person, shop: Shop) -> None:
    account, page = shop.account("one", 100), person.page
    shop.see_accounts(page, f"#account={account}")
    expect(page.locator("#account-customers tbody tr")).to_have_count(1)
    page.emulate_media(media="print")
    for shown in ("#account-name", "#headline", "#chart svg", "#account-customers", "#invoices"):
        expect(page.locator(shown)).to_be_visible()
    for hidden in ("button", "input", "select", "nav", "#strip", "#account-back"):
        expect(page.locator(f"{hidden}:visible")).to_have_count(0)


def test_an_account_that_is_not_there_is_said_to_be_missing(person: Person, shop: Shop) -> None:
    person.page.goto(f"http://127.0.0.1:{shop.tally.accounts.port}/#account=999999")
    expect(person.page.get_by_role("heading", name="Account 999999")).to_be_visible()
    expect(person.page.get_by_role("main")).to_contain_text("There is no account 999999")
    expect(person.page.get_by_role("main").get_by_role("button")).to_have_count(0)
    person.page.goto(f"http://127.0.0.1:{shop.tally.accounts.port}/#account={shop.account('there', 5)}")
    expect(person.page.get_by_role("main")).to_contain_text("1 to 1 of 1")
    person.expects("404")


def test_names_are_text_whatever_they_look_like(person: Person, shop: Shop) -> None:
    name = "<img src=x onerror=alert(1)><b>bold</b> {login} &amp;"
    shop.account(name, 1, owner="<script>alert(1)</script>")
    shop.see_accounts(person.page)
    expect(_names(person.page)).to_have_text([f"{shop.mark} {name}"])
    expect(person.page.locator("main img, main b, main script")).to_have_count(0)


def test_cents_become_money_without_losing_one(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    script = "async (all) => { const { money } = await import('./static/money.js'); return all.map(money); }"
    shown = {"0": "0.00", "5": "0.05", "-5": "\u22120.05", "2933": "29.33",
             "123456789012345678901": "1,234,567,890,123,456,789.01"}  # fmt: skip
    assert person.page.evaluate(script, [*shown]) == [*shown.values()]


def test_money_is_written_as_the_reader_writes_it(window: OpenWindow, shop: Shop) -> None:
    person = window(locale="de-DE")
    shop.account("one", 123_456_789)
    shop.see_accounts(person.page)
    expect(_revenue(person.page, "one")).to_have_text("1.234.567,89")


def test_an_account_is_opened_by_keyboard_alone_and_shown(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    person.page.get_by_role("button", name="New account").press("Enter")
    expect(person.page.get_by_label("Name", exact=True)).to_be_focused()
    for written in (f"{shop.mark} Søndre", "bruno", "The one by the sea"):
        person.page.keyboard.type(written)
        person.page.keyboard.press("Tab")
    person.page.keyboard.press("Shift+Tab")
    person.page.keyboard.press("Enter")
    expect(person.page.locator("#account-name")).to_be_focused()
    expect(person.page.locator("#account-name")).to_have_text(f"{shop.mark} Søndre")
    for text in ("owned by bruno", "The one by the sea", "No customers yet.", "No invoices yet."):
        expect(person.page.get_by_role("main")).to_contain_text(text)
    id = person.page.url.partition("#account=")[2]
    assert shop.tally.accounts.get(f"/accounts/{id}")["account"]["owned_by"] == "bruno"
    person.page.go_back()
    expect(_row(person.page, "Søndre").get_by_role("link")).to_be_focused()


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
        person.page.get_by_role("link", name=f"{shop.mark} {name}").click()
        _delete(person.page)
        question = person.page.get_by_role("dialog", name=f"Delete {shop.mark} {name}?")
        expect(question).to_contain_text(said)
        expect(question.get_by_role("button", name="Cancel")).to_be_focused()
        question.get_by_role("button", name="Delete account").click()
        expect(person.page.get_by_role("dialog")).to_have_count(0)
        expect(_row(person.page, name)).to_have_count(0)
        expect(person.page.get_by_label("Search accounts")).to_be_focused()
    assert {each["account"]["id"] for each in shop.tally.accounts.get("/accounts")}.isdisjoint({id, other})
    eventually(lambda: customers.isdisjoint(shop.customers()))
    # A request for the account may have been on its way during the deletion.
    person.complaints = [each for each in person.complaints if "404" not in each]


def test_an_account_that_got_a_customer_meanwhile_is_not_deleted_without_a_word(
    person: Person, shop: Shop
) -> None:
    id = shop.account("one")
    shop.see_accounts(person.page, f"#account={id}")
    _delete(person.page)
    question = person.page.get_by_role("dialog", name=f"Delete {shop.mark} one?")
    shop.customer("late", id)
    eventually(lambda: shop.tally.accounts.get(f"/accounts/{id}")["customers"])
    question.get_by_role("button", name="Delete account").click()
    expect(question.get_by_role("alert")).to_have_text(
        "The account has customers by now: look at them first."
    )
    question.get_by_role("button", name="Cancel").click()
    expect(person.page.get_by_role("main")).to_contain_text("1 to 1 of 1")
    person.expects("409")


def test_the_strip_is_a_line_while_all_is_well(person: Person, shop: Shop) -> None:
    shop.see_accounts(person.page)
    strip = person.page.get_by_role("region", name="State of the accounts service")
    expect(strip).to_have_text(re.compile(r"^All is well· \d+\.\d s ago$"))
    assert strip.evaluate("strip => strip.offsetHeight") < 60  # px


def test_an_empty_tally_says_how_to_begin_and_a_dead_one_is_waited_for(
    browser: Browser, tmp_path: Path
) -> None:
    with running(tmp_path) as tally:
        person = Person(browser)
        page, notice = person.page, person.page.locator("#strip .notice")
        page.goto(f"http://127.0.0.1:{tally.accounts.port}/")
        begin = page.locator("#begin")
        expect(begin).to_contain_text("There is no account yet.")
        for step in ("Open an account", "Record a customer", "import a file", "Load the demo"):
            expect(begin).to_contain_text(step)
        expect(page.locator("#looked-at")).to_be_hidden()
        expect(begin.get_by_role("link", name="the customers page")).to_have_attribute(
            "href", f"http://127.0.0.1:{tally.customers.port}/"
        )
        begin.get_by_role("button", name="Open an account").click()
        expect(page.get_by_role("dialog", name="New account")).to_be_visible()
        page.keyboard.press("Escape")
        tally.accounts.post("/accounts", {"name": "The first", "owned_by": "ana"})
        expect(page.get_by_role("link", name="The first")).to_be_visible()
        expect(begin).to_be_hidden()
        assert tally.stop() == 0
        expect(notice).to_have_text(
            re.compile(r"The accounts service does not answer. Trying again… What is shown is of .*\d:\d\d")
        )
        expect(page.locator("#headline")).to_have_css("color", "rgb(89, 98, 92)")
        look_over(page)
        expect(page.locator("#strip")).to_contain_text("No answer")
        expect(page.get_by_role("link", name="The first")).to_be_visible()
        tally.start()
        tally.accounts.post("/accounts", {"name": "The second", "owned_by": "ana"})
        expect(notice).to_be_hidden()
        expect(page.get_by_role("link", name="The second")).to_be_visible()
        expect(page.locator("#headline")).to_have_css("color", "rgb(26, 31, 28)")
        expect(page.locator("#strip")).to_contain_text("All is well")
        person.expects("ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
        person.leave()


def test_the_order_that_is_chosen_and_the_one_that_is_shown_are_one(person: Person, shop: Shop) -> None:
    shop.account("a", 5)
    shop.see_accounts(person.page)
    person.page.get_by_label("Sort by").evaluate("box => { box.value = '-name'; }")
    person.page.get_by_label("Sort by").dispatch_event("change")
    expect(_head(person.page, "Account")).to_have_attribute("aria-sort", "descending")
    person.page.goto(f"http://127.0.0.1:{shop.tally.customers.port}/")
    person.page.go_back()
    expect(_head(person.page, "Account")).to_have_attribute("aria-sort", "descending")
    expect(person.page.locator("#sort")).to_have_value("-name")
    expect(person.page.get_by_label("Search accounts")).to_have_value(shop.mark)


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
            expect(strip).to_contain_text("What is recorded is safe")
            expect(strip).to_contain_text("Redis does not answer")
            server.start()
            expect(strip).to_contain_text("All is well")
            expect(strip).not_to_contain_text("safe")
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
        # One for each service.
        expect(strip).to_contain_text("2 dead letters wait for a decision")
        expect(person.page.locator("#announce")).to_have_text("accounts service: Degraded")
        person.leave()


def test_revenue_that_no_account_shows_and_numbers_given_twice_are_told(
    browser: Browser, tmp_path: Path
) -> None:
    """Everything is visible, and nothing is merged without a message."""
    with running(tmp_path) as tally, redis.Redis.from_url(tally.settings["redis"]["url"]) as client:
        shop, person = Shop(tally), Person(browser)
        shop.invoice(shop.customer("Ada", "4711"), 2933)
        shop.see_accounts(person.page, "#")
        strip = person.page.locator("#strip")
        expect(strip.locator(".notes")).to_contain_text("29.33 of revenue, of 1 customers, is shown nowhere")
        customer = '{"id":"1","account_id":"8","name":"Another","created_date":"2001-01-06T00:00:00Z"}'
        fields = {"EventTypeName": "CustomerCreated", "Payload": customer, "EventId": "customers@0000beef:1"}
        client.xadd("event-stream", fields)
        expect(strip.locator(".reasons")).to_contain_text(
            "1 customers or accounts were created under a number"
        )
        person.leave()


def test_a_currency_stands_at_what_counts_and_in_the_heads_of_columns(
    browser: Browser, tmp_path: Path
) -> None:
    with running(tmp_path, pages={"currency": "EUR"}) as tally:
        person, shop = Person(browser), Shop(tally)
        shop.account("one", 2933)
        shop.see_accounts(person.page)
        expect(person.page.locator("#total-revenue")).to_have_text("EUR\u00a029.33")
        expect(_head(person.page, "Revenue")).to_have_text("Revenue (EUR)")
        expect(_revenue(person.page, "one")).to_have_text("29.33")
        person.leave()
