"""Both pages behind a proxy, as one site under any path: one sign-in for both, and links between them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, expect

from support import users
from support.browser import Person
from support.engines import free_port
from support.reverse_proxies import front_door
from support.tally import Tally, prepared
from support.waiting import eventually


class Layout(NamedTuple):
    """How nginx shows the services: its `server` blocks, and where a browser finds each page."""

    servers: str
    customers: str
    accounts: str


def _location(path: str, upstream: int) -> str:
    return f"""
        location {path} {{
            proxy_pass http://127.0.0.1:{upstream}/;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    """


def _server(port: int, locations: str, name: str = "_") -> str:
    return f"server {{ listen 127.0.0.1:{port}; server_name {name}; {locations} }}"


def _two_ports(port: int, tally: Tally) -> Layout:
    other = free_port()
    servers = _server(port, _location("/", tally.customers.port)) + _server(
        other, _location("/", tally.accounts.port)
    )
    return Layout(servers, f"http://localhost:{port}", f"http://localhost:{other}")


def _two_paths(port: int, tally: Tally) -> Layout:
    both = _location("/books/customers/", tally.customers.port) + _location(
        "/books/accounts/", tally.accounts.port
    )
    at = f"http://localhost:{port}/books"
    return Layout(_server(port, both), f"{at}/customers", f"{at}/accounts")


def _two_names(port: int, tally: Tally) -> Layout:
    names = ("customers.tally.test", "accounts.tally.test")
    upstreams = (tally.customers.port, tally.accounts.port)
    blocks = (_server(port, _location("/", at), name) for name, at in zip(names, upstreams, strict=True))
    return Layout("".join(blocks), *(f"http://{name}:{port}" for name in names))


@pytest.mark.parametrize("lay_out", [_two_ports, _two_paths, _two_names])
def test_one_signs_in_once_for_both_pages(
    tmp_path: Path, browser: Browser, lay_out: Callable[[int, Tally], Layout]
) -> None:
    tally, port = prepared(tmp_path / "tally"), free_port()
    layout = lay_out(port, tally)
    tally.settings["auth"] = {"mode": "jwt", "trusted_proxy": "127.0.0.1"}
    tally.settings["pages"] = {"customers_url": layout.customers, "accounts_url": layout.accounts}
    tally.start()
    try:
        users.add(tally, "root", admin=True)
        admin = users.sign_in(tally, "root")
        account = admin.accounts.post("/accounts", {"name": "Shop", "owned_by": "root"})["id"]
        eventually(lambda: admin.customers.request("POST", "/customers", _customer(account)).status == 201)
        with front_door(tmp_path, layout.servers, port):
            _goes_through_the_door(Person(browser), layout)
    finally:
        tally.end()


def _customer(account: str) -> dict[str, str]:
    return {"name": "Friend", "account_id": account}


def _goes_through_the_door(person: Person, layout: Layout) -> None:
    page = person.page
    dialog = page.get_by_role("dialog", name="Sign in to Tally")
    page.goto(f"{layout.customers}/")
    page.get_by_label("User name").fill("root")
    page.get_by_label("Password").fill(users.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("tbody").get_by_text("Friend")).to_be_visible()
    assert page.evaluate("document.cookie") == "", "a script can read the token"
    page.get_by_role("link", name="Accounts", exact=True).click()
    expect(page.locator("tbody").get_by_text("Shop")).to_be_visible()
    assert page.url.startswith(f"{layout.accounts}/")
    page.goto(f"{layout.accounts}/docs")
    as_by_link = page.evaluate("async () => (await fetch(document.links[3].href)).status")
    assert (page.locator("a").nth(3).get_attribute("href"), as_by_link) == ("openapi.json", 200)
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
    for address in (layout.customers, layout.accounts):
        page.goto(f"{address}/")
        expect(dialog).to_be_visible()
        expect(page.get_by_text("Friend")).to_have_count(0)
    person.expects("401")
    if not page.evaluate("isSecureContext"):
        person.expects("Cross-Origin-Opener-Policy header has been ignored")  # the host name has no TLS
    person.leave()
