"""Each service has a page in docs/services/ that names every call, event and table."""

import re
from pathlib import Path

import pytest

from support.tally import ROOT
from tally.actors.services import SERVICES
from tally.events import EVENT_TYPES

PAGES = {service: (ROOT / "docs" / "services" / f"{service}.md").read_text() for service in SERVICES}
OWNERS = {
    **dict.fromkeys(("customers", "invoices", "credits"), "customers"),
    **dict.fromkeys(("accounts", "revenue", "auth"), "accounts"),
}


def _routes() -> list[tuple[str, str]]:
    """Every path of the applications, with each service that serves it."""
    sources = "".join(file.read_text() for file in (ROOT / "http").glob("*.py"))
    routes = re.findall(r'add_route\(\s*"([^"]+)"', sources)
    return [
        (route.replace(":path}", "}"), service)
        for route in routes
        for service in SERVICES
        if OWNERS.get(route.split("/")[1], service) == service
    ]


@pytest.mark.parametrize(("route", "service"), _routes())
def test_a_services_page_names_each_of_its_calls(route: str, service: str) -> None:
    assert re.search(rf"[ `]{re.escape(route)}`", PAGES[service])


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_page_tells_of_every_event_whether_it_publishes_it_or_reacts(service: str) -> None:
    assert {name for name in EVENT_TYPES if f"`{name}`" not in PAGES[service]} == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_page_tells_what_is_in_every_table(service: str, tmp_path: Path) -> None:
    database = SERVICES[service].open(tmp_path)
    # A virtual table's own tables are "shadow".
    tables = database.rows(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
        " AND name NOT LIKE 'sqlite_%'"
    )
    assert {name for (name,) in tables if f"`{name}`" not in PAGES[service]} == set()
