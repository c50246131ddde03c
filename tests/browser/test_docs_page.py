"""The page of the API, `/docs`: a third party's library under the same policy as our own pages."""

import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Locator, ViewportSize, expect

from support import users
from support.browser import OpenWindow, Person, what_axe_blames
from support.tally import Tally, running

GROUPS = {
    "customers": ["Customers", "Invoices", "Credits", "The service itself"],
    "accounts": ["Accounts", "Revenue", "The service itself"],
}


def _list_one(call: Locator) -> None:
    """Carry out a list's call, with a parameter."""
    call.locator('tr[data-param-name="limit"] input').fill("1")
    call.get_by_role("button", name="Execute").click()


def test_who_must_sign_in_does_so_once_and_the_calls_go_with_the_token(
    person: Person, tmp_path: Path
) -> None:
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        users.add(tally, "alice")
        page = person.page
        page.goto(f"http://127.0.0.1:{tally.accounts.port}/docs")
        page.get_by_label("User name").fill("alice")
        page.get_by_label("Password").fill(users.PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        call = page.locator("[id$=listAccounts]")
        call.locator(".opblock-summary-control").click()
        call.get_by_role("button", name="Execute").click()
        expect(call.locator(".live-responses-table tr.response .response-col_status")).to_contain_text("200")
        expect(page.locator("body")).not_to_contain_text("Bearer ey")
        person.expects("401")


@pytest.mark.parametrize(
    ("service", "make"), [("customers", "createCustomer"), ("accounts", "createAccount")]
)
def test_the_calls_are_shown_in_groups_and_one_is_carried_out(
    person: Person, tally: Tally, service: str, make: str
) -> None:
    page, own = person.page, f"http://127.0.0.1:{getattr(tally, service).port}/"
    page.goto(f"{own}docs")
    expect(page).to_have_title(f"Calls of the {service} service · Tally")
    for group in GROUPS[service]:
        expect(page.locator(f'[data-tag="{group}"]')).to_be_visible()
    expect(page.locator("h3.opblock-tag")).to_have_count(len(GROUPS[service]))

    page.locator(f"[id$={make}] .opblock-summary-control").click()
    key = page.locator(f'[id$={make}] tr[data-param-name="Idempotency-Key"] input')
    expect(key).to_have_value("")

    list_of = page.locator(f"[id$=list{service.capitalize()}]").first
    list_of.locator(".opblock-summary-control").click()
    expect(page).to_have_url(re.compile(f"/list{service.capitalize()}$"))  # a link to the call
    # Finished: the whole answer has come. If it is not drawn, the page is at fault, not the service.
    with page.expect_request_finished(lambda request: request.url.startswith(f"{own}{service}")) as finished:
        _list_one(list_of)
    assert finished.value.url.endswith("limit=1")
    assert (response := finished.value.response())
    assert response.status == 200
    answer = list_of.locator(".live-responses-table tr.response")
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer).to_contain_text("everyone" if service == "accounts" else '"next":')
    asked = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    assert [url for url in asked if not url.startswith((own, "data:"))] == []


# Each size, each scheme: no colour depends on the width, and axe takes ten seconds for so long a page.
WINDOWS: list[tuple[Literal["light", "dark"], ViewportSize]] = [
    ("light", {"width": 1440, "height": 900}),
    ("dark", {"width": 720, "height": 450}),  # 200 %
    ("light", {"width": 390, "height": 844}),
]


@pytest.mark.parametrize(("scheme", "size"), WINDOWS)
def test_axe_has_nothing_to_blame_and_nothing_sticks_out(
    window: OpenWindow, tally: Tally, scheme: str, size: ViewportSize
) -> None:
    page = window(reduced_motion="reduce", color_scheme=scheme, viewport=size).page
    page.goto(f"http://127.0.0.1:{tally.customers.port}/docs")
    for call in ("createCustomer", "listCustomers"):
        page.locator(f"[id$={call}] .opblock-summary-control").click()
    called = page.locator("[id$=listCustomers]")
    _list_one(called)
    expect(called.locator(".live-responses-table")).to_be_visible()
    page.get_by_role("button", name="Schemas").click()
    expect(page.get_by_text("CustomerPatch").last).to_be_visible()
    # The preload would look for tally.css in the wrong place.
    found = what_axe_blames(page, preload=False)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_behind_a_proxy_that_takes_a_path_off_the_calls_go_by_that_path(person: Person, tally: Tally) -> None:
    page = person.page
    page.route(
        "**/tally/**",
        lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/tally/", "/", 1))),
    )
    page.goto(f"http://127.0.0.1:{tally.accounts.port}/tally/docs")
    call = page.locator("[id$=listAccounts]")
    call.locator(".opblock-summary-control").click()
    _list_one(call)
    expect(call.locator(".request-url")).to_contain_text("/tally/accounts")
    expect(call.locator(".live-responses-table tr.response")).to_contain_text("everyone")
    asked = page.evaluate(
        "performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname)"
    )
    assert [path for path in asked if path.startswith("/") and not path.startswith("/tally/")] == []
