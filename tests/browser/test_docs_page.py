"""The page of the calls, `/docs`: a library of others, under the same policy as our own pages."""

import pytest
from playwright.sync_api import expect

from support.browser import Person
from support.tally import Tally

GROUPS = {
    "customers": ["Customers", "Invoices", "Credits", "The service itself"],
    "accounts": ["Accounts", "Revenue", "The service itself"],
}


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
    with page.expect_response(lambda response: response.url.startswith(f"{own}{service}")) as answered:
        list_of.get_by_role("button", name="Execute").click()
    assert answered.value.status == 200
    expect(list_of.locator(".live-responses-table .response-col_status")).to_contain_text("200")
    if service == "accounts":
        expect(list_of.locator(".live-responses-table")).to_contain_text("everyone")
    asked = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    assert [url for url in asked if not url.startswith((own, "data:"))] == []
