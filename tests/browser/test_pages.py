"""What holds for both pages, in whatever state: policy, contrast and roles, width, colour."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.conftest import OpenWindow, Shop
from playwright.sync_api import Browser, Page, expect

from support.browser import colours
from support.tally import Tally

LONG = "W" * 190

BACKGROUNDS = {"light": "rgb(246, 246, 243)", "dark": "rgb(16, 20, 18)"}

STATES = ["accounts", "one account", "no match", "the strip open", "customers", "one customer", "new customer",
          "wrong fields", "a question"]  # fmt: skip


Show = Callable[[Page, str], None]


@pytest.fixture
def show(shop: Shop) -> Show:
    """Brings a page into a state."""

    def show(page: Page, state: str) -> None:
        account = shop.account("Blue Heron Coffee", 2933, 1000)
        shop.account(LONG[:150], 10**12)
        customer = shop.customer(LONG[:150], account)
        shop.invoice(customer, 10**12)
        match state:
            case "accounts":
                shop.see_accounts(page)
                expect(page.locator("#accounts tbody tr")).to_have_count(2)
            case "one account":
                shop.see_accounts(page, f"#account={account}")
                expect(page.locator("#account-customers tbody tr")).to_have_count(3)
            case "no match":
                shop.see_accounts(page)
                page.get_by_label("Search accounts").fill("nothing is called so")
                expect(page.get_by_text("No account matches.")).to_be_visible()
            case "the strip open":
                shop.see_accounts(page)
                page.locator("#strip summary").click()
                expect(page.get_by_role("row").filter(has_text="accounts-relay")).to_be_visible()
            case "customers":
                shop.see_customers(page)
                expect(page.locator("#customers tbody tr")).to_have_count(4)
            case _:
                shop.see_customers(page, f"#customer={customer}")
                expect(page.locator("#invoices tbody tr")).to_have_count(1)
        match state:
            case "new customer":
                if page.locator("#new-customer").is_hidden():
                    page.get_by_role("link", name="All customers").click()
                page.locator("#new-customer").click()
                page.get_by_role("button", name="Record customer").click()
            case "wrong fields":
                page.get_by_label("Amount", exact=True).fill("1,234.50")
                page.get_by_label("Amount", exact=True).press("Enter")
                expect(page.locator("#invoice .error").filter(has_text="Write the amount")).to_be_visible()
            case "a question":
                page.get_by_role("button", name="Delete customer").click()
                expect(page.get_by_role("dialog")).to_be_visible()

    return show


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_to_blame_in_light_and_dark(window: OpenWindow, show: Show, state: str) -> None:
    person = window(reduced_motion="reduce")
    show(person.page, state)
    for scheme in ("light", "dark"):
        person.page.emulate_media(color_scheme=scheme)
        found = Axe().run(person.page)
        assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"


@pytest.mark.parametrize("state", STATES)
def test_on_a_phones_width_nothing_sticks_out(window: OpenWindow, show: Show, state: str) -> None:
    person = window(viewport={"width": 360, "height": 740})
    show(person.page, state)
    for element in ("html", "dialog[open]"):
        for each in person.page.locator(element).all():
            width, shown = each.evaluate("element => [element.scrollWidth, element.clientWidth]")
            assert width <= shown, element


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
        asked: list[str] = []
        person.page.on("request", lambda request, asked=asked: asked.append(request.url))
        person.page.goto(f"http://127.0.0.1:{service.port}/", wait_until="networkidle")
        assert len(asked) > 5
        assert [url for url in asked if not url.startswith(f"http://127.0.0.1:{service.port}/")] == []


def test_the_script_of_another_or_one_in_the_page_does_not_run(window: OpenWindow, tally: Tally) -> None:
    person = window()
    person.page.goto(f"http://127.0.0.1:{tally.accounts.port}/")
    for attribute, value in (("textContent", "window.ran = true"), ("src", "data:text/javascript,window.ran=true")):
        person.page.evaluate(
            "([attribute, value]) => document.head.append("
            "Object.assign(document.createElement('script'), {[attribute]: value}))",
            [attribute, value],
        )
        person.page.wait_for_timeout(0)
    person.page.evaluate("document.body.setAttribute('style', 'color: red')")
    assert person.page.evaluate("[window.ran, getComputedStyle(document.body).color === 'rgb(255, 0, 0)']") == [
        None,
        False,
    ]
    person.expects("script-src")
    person.expects("style-src")
    person.complaints.clear()
