"""Rules for both pages in every state: policy, contrast and roles, width, colour."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from support.browser import OpenWindow, Person, colours, look_over
from support.shop import Shop
from support.tally import Tally, running
from tally.store.nodes import HIGHEST

LONG = "W" * 180
SMALL: list[ViewportSize] = [{"width": 720, "height": 450}, {"width": 360, "height": 740}]  # 200 %, a phone

BACKGROUNDS = {"light": "rgb(246, 246, 243)", "dark": "rgb(16, 20, 18)"}

STATES = ["accounts", "one account", "from to", "a menu", "new account", "change account",
          "delete account", "no match",
          "customers", "one customer", "new customer", "wrong fields", "a question"]  # fmt: skip


Show = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def show(tally: Tally) -> Show:
    """Brings a page into a state."""
    shop = Shop(tally)
    account = shop.account("Blue Heron Coffee", 2933, 1000)
    shop.account(LONG, 10**12)
    customer = shop.customer(LONG, account)
    shop.invoice(customer, 10**12)

    def show(page: Page, state: str) -> None:
        match state:
            case "accounts" | "a menu" | "new account" | "no match":
                shop.see_accounts(page)
                expect(page.locator("#accounts tbody tr")).to_have_count(2)
            case "one account" | "change account" | "delete account" | "from to":
                shop.see_accounts(page, f"#account={account}")
                expect(page.locator("#account-customers tbody tr")).to_have_count(3)
            case "customers" | "new customer":
                shop.see_customers(page)
                expect(page.locator("#customers tbody tr")).to_have_count(4)
            case _:
                shop.see_customers(page, f"#customer={customer}")
                expect(page.locator("#entries tbody tr")).to_have_count(1)
        match state:
            case "no match":
                page.get_by_label("Search accounts").fill("nothing is called so")
                expect(page.get_by_text("No account matches.")).to_be_visible()
            case "new account":
                page.locator("#new-account").click()
                page.get_by_role("button", name="Open account").click()
                expect(page.get_by_text("Enter the account's name.")).to_be_visible()
            case "from to":
                page.get_by_role("radio", name="From \u2013 to").check()
                page.get_by_text("The figures as a table").click()
                page.get_by_role("slider").focus()
                expect(page.locator(".tip")).to_be_visible()
            case "a menu":
                page.get_by_role("button", name=f"More for account {account}").click()
                expect(page.get_by_role("menu")).to_be_visible()
            case "change account":
                page.get_by_role("button", name="Change").click()
                expect(page.get_by_role("dialog", name="Change ")).to_be_visible()
            case "delete account":
                page.get_by_role("button", name="More for this account").click()
                page.get_by_role("menuitem", name="Delete account…").click()
                expect(page.get_by_role("dialog", name="Delete ")).to_be_visible()
            case "new customer":
                page.locator("#new-customer").click()
                page.get_by_role("button", name="Record customer").click()
                expect(page.get_by_text("Enter the customer's name.")).to_be_visible()
            case "wrong fields":
                page.get_by_label("Amount", exact=True).fill("1,234.50")
                page.get_by_label("Amount", exact=True).press("Enter")
                expect(page.locator("#invoice .error").filter(has_text="Write digits only")).to_be_visible()
            case "a question":
                page.get_by_role("button", name="More for the customer").click()
                page.get_by_role("menuitem", name="Delete customer").click()
                expect(page.get_by_role("dialog")).to_be_visible()

    return show


@pytest.mark.parametrize("state", STATES)
def test_axe_has_nothing_to_blame_in_both_themes_and_sizes_and_nothing_sticks_out(
    window: OpenWindow, show: Show, state: str
) -> None:
    page = window(reduced_motion="reduce").page
    show(page, state)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        look_over(page, scheme)
    for size in SMALL:
        page.set_viewport_size(size)
        look_over(page, size)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["accounts", "one customer"])
def test_a_picture_of_the_page_is_not_blank(
    browser: Browser, window: OpenWindow, show: Show, state: str, scheme: str
) -> None:
    person = window(color_scheme=scheme)
    show(person.page, state)
    number, share = colours(browser, person.page.screenshot())
    assert number > 100
    assert 0.3 < share < 0.95
    assert person.page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUNDS[scheme]


def test_everything_is_loaded_from_the_service_itself(window: OpenWindow, tally: Tally) -> None:
    for service in (tally.accounts, tally.customers):
        person = window()
        own = f"http://127.0.0.1:{service.port}/"
        person.page.goto(own)
        expect(person.page.locator("#strip")).to_contain_text("All is well")
        asked = person.page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
        assert len(asked) > 5
        # The customers page asks the other service for the accounts' names.
        names = f"http://127.0.0.1:{tally.accounts.port}/accounts/names?"
        assert [url for url in asked if not url.startswith((own, names))] == []


def test_the_script_of_another_or_one_in_the_page_does_not_run(window: OpenWindow, tally: Tally) -> None:
    person = window()
    person.page.goto(f"http://127.0.0.1:{tally.accounts.port}/")
    for attribute, value in (
        ("textContent", "window.ran = true"),
        ("src", "data:text/javascript,window.ran=true"),
    ):
        person.page.evaluate(
            "([attribute, value]) => document.head.append("
            "Object.assign(document.createElement('script'), {[attribute]: value}))",
            [attribute, value],
        )
        person.page.wait_for_timeout(0)
    person.page.evaluate("document.body.setAttribute('style', 'color: red')")
    assert person.page.evaluate(
        "[window.ran, getComputedStyle(document.body).color === 'rgb(255, 0, 0)']"
    ) == [
        None,
        False,
    ]
    person.expects("script-src")
    person.expects("style-src")
    person.complaints.clear()


@pytest.mark.parametrize("service", ["accounts", "customers"])
def test_the_operations_are_linked_at_the_top_also_while_the_service_does_not_answer(
    person: Person, tally: Tally, service: str
) -> None:
    page = person.page
    page.goto(f"http://127.0.0.1:{getattr(tally, service).port}/")
    link = page.get_by_role("navigation", name="Services").get_by_role("link", name="Operations")
    expect(link).to_be_visible()
    page.route("**/status", lambda route: route.abort())
    expect(page.locator("#strip")).to_contain_text("No answer")
    expect(link).to_be_visible()
    page.unroute_all()
    link.click()
    expect(page.get_by_role("row").filter(has_text="accounts-consumer-2")).to_be_visible()
    person.expects("ERR_FAILED")


def test_the_ids_of_any_node_fit_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, node={"number": HIGHEST}) as tally:
        shop, person = Shop(tally), Person(browser, viewport={"width": 375, "height": 740})
        account = shop.account("Blue Heron Coffee", 2933, 1000)
        customer = shop.customer(LONG, account)
        shop.invoice(customer, 10**12)
        for see, place, shown in (
            (shop.see_accounts, f"#account={account}", "#account-customers tbody tr"),
            (shop.see_customers, "", "#customers tbody tr"),
            (shop.see_customers, f"#customer={customer}", "#entries tbody tr"),
        ):
            see(person.page, place)
            expect(person.page.locator(shown).first).to_be_visible()
            for part in person.page.locator("html, dialog[open]").all():
                assert part.evaluate("each => each.scrollWidth - each.clientWidth") <= 0, place
        person.leave()
