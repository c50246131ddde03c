"""Sign-in, against stand-ins whose tokens end when a test says so, and against the real services."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect

from support import users
from support.browser import Person
from support.guarded import Guarded, guarded
from support.tally import Tally, running
from support.waiting import eventually


@pytest.fixture(scope="module")
def services() -> Iterator[Guarded]:
    with guarded() as services:
        yield services


def _sign_in(page: Page, password: str = "correct horse", name: str = "ana") -> None:
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize(
    ("service", "secret"), [("accounts", "A secret account"), ("customers", "A secret customer")]
)
def test_who_has_no_token_is_asked_once_and_sees_everything_then(
    person: Person, services: Guarded, service: str, secret: str
) -> None:
    page = person.page
    page.goto(f"http://localhost:{services.ports[service]}/")
    dialog = page.get_by_role("dialog", name="Sign in to Tally")
    expect(dialog).to_be_visible()
    expect(page.get_by_label("User name")).to_be_focused()
    expect(page.get_by_text(secret)).to_have_count(0)
    _sign_in(page, "wrong")
    expect(dialog.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    _sign_in(page)
    expect(page.locator("tbody").get_by_text(secret)).to_be_visible()
    expect(page.locator("#strip")).to_contain_text("All is well")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.reload()
    expect(page.locator("tbody").get_by_text(secret)).to_be_visible()
    person.expects("401")


def test_who_signs_out_leaves_nothing_to_see(person: Person, services: Guarded) -> None:
    page = person.page
    page.goto(f"http://localhost:{services.ports['accounts']}/")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    _sign_in(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    expect(page.get_by_text("A secret account")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    person.expects("401")


def test_when_the_token_ends_one_is_asked_again_and_goes_on(person: Person, services: Guarded) -> None:
    page = person.page
    page.goto(f"http://localhost:{services.ports['accounts']}/")
    _sign_in(page)
    expect(page.locator("tbody").get_by_text("A secret account")).to_be_visible()
    services.revoked.set()
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    _sign_in(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("tbody").get_by_text("A secret account")).to_be_visible()
    person.expects("401")


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """Two users, each with an account and a customer in it, and an admin."""
    directory: Path = tmp_path_factory.mktemp("users")
    with running(directory, auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        admin = users.sign_in(tally, "root")
        tally.customers, tally.accounts = admin.customers, admin.accounts  # `settled` asks as this user
        for name in ("ana", "bob"):
            users.add(tally, name)
            id = admin.accounts.post("/accounts", {"name": f"Shop of {name}", "owned_by": name})["id"]
            eventually(tally.settled)  # then the customers service knows the account
            admin.customers.post("/customers", {"name": f"Friend of {name}", "account_id": id})
        eventually(lambda: users.sign_in(tally, "bob").customers.get("/customers")["customers"])
        yield tally


@pytest.mark.parametrize(("service", "what"), [("accounts", "Shop"), ("customers", "Friend")])
@pytest.mark.parametrize(("name", "seen"), [("ana", ["ana"]), ("root", ["ana", "bob"])])
def test_each_user_sees_what_is_theirs_and_an_admin_all(
    person: Person, tally: Tally, service: str, what: str, name: str, seen: list[str]
) -> None:
    page = person.page
    page.goto(f"http://localhost:{getattr(tally, service).port}/")
    _sign_in(page, "not this one", name)
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    _sign_in(page, users.PASSWORD, name)
    rows = page.locator(f"#{service} tbody tr")
    expect(rows).to_have_count(len(seen))
    for owner in seen:
        expect(rows.filter(has_text=f"{what} of {owner}")).to_have_count(1)
        expect(rows.filter(has_text=f"Shop of {owner}")).to_have_count(1)  # the account's name, on both pages
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    expect(page.get_by_text(f"{what} of")).to_have_count(0)
    person.expects("401")


def test_a_user_opens_accounts_of_its_own_only(person: Person, tally: Tally) -> None:
    users.add(tally, "Zoë")
    page = person.page
    page.goto(f"http://localhost:{tally.accounts.port}/")
    _sign_in(page, users.PASSWORD, "Zoë")
    page.get_by_role("button", name="Open an account").click()
    page.get_by_label("Name", exact=True).fill("Shop of Zoë")
    expect(page.get_by_label("Owner", exact=True)).to_have_value("Zoë")
    page.get_by_label("Owner", exact=True).fill("ana")
    page.get_by_role("button", name="Open account", exact=True).click()
    said = "Only an admin may open an account for another than Zoë."
    expect(page.get_by_role("dialog", name="New account").get_by_role("alert")).to_have_text(said)
    page.get_by_label("Owner", exact=True).fill("Zoë")
    page.get_by_role("button", name="Open account", exact=True).click()
    expect(page.get_by_role("heading", name="Shop of Zoë")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("owned by Zoë")
    person.expects("401")
    person.expects("403")


def test_a_user_imports_into_accounts_of_its_own_only(person: Person, tally: Tally) -> None:
    own, other = (each["account"]["id"] for each in tally.accounts.get("/accounts?limit=2"))
    page = person.page
    page.goto(f"http://localhost:{tally.customers.port}/")
    _sign_in(page, users.PASSWORD, "ana")
    page.get_by_role("button", name="Import", exact=True).click()
    dialog = page.get_by_role("dialog", name="Import a file")
    rows = b"customer,purchase_date,amount\nFriend of ana,2024-01-31,5\n"
    file: FilePayload = {"name": "a.csv", "mimeType": "text/csv", "buffer": rows}
    dialog.locator("input[type=file]").set_input_files(file)
    account = dialog.get_by_label("Account", exact=True)
    account.fill(other)
    expect(dialog.locator(".error[role=alert]")).to_contain_text(f"There is no account {other}")
    account.fill(own)
    dialog.get_by_role("button", name="Import 1 invoice").click()
    expect(page.get_by_role("dialog", name="Imported")).to_contain_text("1 invoice recorded in Shop of ana")
    person.expects("401")
    person.expects("422")


def test_a_sign_in_that_nobody_answers_is_not_said_to_record_anything(
    person: Person, services: Guarded
) -> None:
    page = person.page
    page.route("**/auth/login", lambda route: route.abort())
    page.goto(f"http://localhost:{services.ports['accounts']}/")
    _sign_in(page)
    alert = page.get_by_role("dialog", name="Sign in to Tally").get_by_role("alert")
    expect(alert).to_have_text("The accounts service does not answer.")
    person.expects("401")
    person.expects("ERR_FAILED")


def test_what_one_user_wrote_is_not_recorded_by_another_who_signs_in(person: Person, tally: Tally) -> None:
    page, name = person.page, "Written by root"
    page.goto(f"http://localhost:{tally.customers.port}/")
    _sign_in(page, users.PASSWORD, "root")
    page.get_by_role("button", name="New customer").click()
    form = page.get_by_role("dialog", name="New customer")
    form.get_by_label("Name", exact=True).fill(name)
    ana = users.sign_in(tally, "ana").accounts.get("/accounts?limit=1")[0]["account"]["id"]
    form.get_by_label("Account", exact=True).fill(ana)
    page.context.clear_cookies()
    expect(page.get_by_role("dialog", name="Sign in to Tally")).to_be_visible()
    with page.expect_navigation():
        _sign_in(page, users.PASSWORD, "ana")
    expect(page.locator("#customers tbody tr")).to_have_count(1)
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert name not in [each["name"] for each in tally.customers.get("/customers")["customers"]]
    person.expects("401")
