"""GET /metrics: any process gives the figures of the whole service, and none is wrong."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from support import disks
from support.promtool import promtool
from support.scraping import Scrape, scrape, scrape_openmetrics
from support.tally import ROOT, Client, Tally, running
from support.waiting import eventually
from tally.actors.metrics import FAMILIES
from tally.store.stream import connect

OPERATIONS = ROOT / "docs" / "operations"
COUNT = "tally_http_request_duration_seconds_count"

ROUTES = {
    "none", "/customers", "/customers/{id}", "/customers/batch", "/invoices", "/metrics", "/status",
}  # fmt: skip
INVOICE = {"customer_id": "1", "purchase_date": "2026-01-01", "purchase_price_cents": 5}


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    """A Tally with two HTTP processes for customers. All tests share its counters, so each compares."""
    sections: dict[str, Any] = {"customers": {"processes": 2}, "consumers": {"claim_idle_ms": 100}}
    with running(tmp_path_factory.mktemp("metrics"), **sections) as tally:
        tally.accounts.post("/accounts", {"name": "one", "owned_by": "user1"})
        tally.customers.post("/customers", {"name": "Ada", "account_id": "1"})
        tally.customers.post("/invoices", INVOICE)
        eventually(tally.settled)
        yield tally


@pytest.fixture
def stream(tally: Tally) -> Iterator[redis.Redis]:
    """A client of Tally's Redis, with Tally's rights."""
    with connect(tally.redis_url) as client:
        yield client


def _both(tally: Tally) -> list[Client]:
    return [tally.customers, tally.accounts]


def _invoices(page: Scrape) -> float:
    return page.value(COUNT, method="POST", route="/invoices", status="201")


def _is_replaced(tally: Tally, actor: str, killed: int) -> bool:
    return tally.pids().get(actor) not in (None, killed)


def _applied(page: Scrape) -> float:
    return page.value("tally_events_applied_total")


@contextmanager
def _stopped(*pids: int) -> Iterator[None]:
    """The processes are suspended meanwhile."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.suspend()
    eventually(lambda: all(process.status() == psutil.STATUS_STOPPED for process in processes))
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_prometheus_and_openmetrics_read_the_same_figures_without_complaint(tally: Tally) -> None:
    for client, concerned in ((tally.customers, 1), (tally.accounts, 3)):
        as_text, as_openmetrics = scrape(client), scrape_openmetrics(client)
        assert set(as_text.families) == set(as_openmetrics.families)
        for page in (as_text, as_openmetrics):
            assert page.value("tally_events_applied_total") == concerned
            assert page.value("tally_event_visible_seconds_count") == concerned


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=x", "text/plain; version=1..0"])
def test_an_accept_with_a_version_that_is_none_gets_the_plain_text(tally: Tally, accept: str) -> None:
    answered = tally.customers.request("GET", "/metrics", headers={"Accept": accept})
    assert (answered.status, answered.headers["Content-Type"].split(";")[0]) == (200, "text/plain")


def test_promtool_finds_nothing_to_say_about_names_units_and_help(tally: Tally) -> None:
    for client in _both(tally):
        assert promtool("check", "metrics", stdin=scrape(client).text) == ""


def test_a_service_tells_of_itself_alone(tally: Tally) -> None:
    for name, client in (("customers", tally.customers), ("accounts", tally.accounts)):
        page = scrape(client)
        samples = [sample for family in page.families.values() for sample in family.samples]
        assert {sample.labels["service"] for sample in samples} == {name}
        actors = page.labels("tally_actor_up", "actor")
        assert actors == {actor for actor in tally.pids() if actor.startswith(name)}
        assert page.value("tally_actor_up") == len(actors)
        assert page.value("tally_actor_resident_memory_bytes") > 0


def test_every_process_tells_what_all_of_them_counted(tally: Tally) -> None:
    pids = tally.pids()
    before = _invoices(scrape(tally.customers))
    for serving, others, count in (("1", "2", 3), ("2", "1", 4)):
        with _stopped(pids[f"customers-http-{others}"]):
            client = Client(tally.customers.port)
            for _ in range(count):
                client.post("/invoices", INVOICE)
            before += count
            assert _invoices(scrape(client)) == before, f"told by customers-http-{serving}"


def test_what_was_counted_outlives_the_processes_that_counted_it(tally: Tally) -> None:
    tally.customers.post("/invoices", INVOICE)
    eventually(tally.settled)
    before = scrape(tally.customers), scrape(tally.accounts)
    for actor in tally.pids():
        if actor != "redis":
            killed = tally.kill(actor)
            eventually(partial(_is_replaced, tally, actor, killed))

    def added() -> bool:
        Client(tally.customers.port).post("/invoices", INVOICE)
        return True

    eventually(added)
    eventually(lambda: _applied(scrape(Client(tally.accounts.port))) == _applied(before[1]) + 1)
    after = scrape(Client(tally.customers.port)), scrape(Client(tally.accounts.port))
    assert _invoices(after[0]) == _invoices(before[0]) + 1
    assert (
        after[0].value("tally_events_published_total") == before[0].value("tally_events_published_total") + 1
    )
    for old, new in zip(before, after, strict=True):
        for actor in old.labels("tally_actor_restarts_total", "actor"):
            counted = [page.value("tally_actor_restarts_total", actor=actor) for page in (old, new)]
            assert counted[1] == counted[0] + 1


def test_routes_are_templates_and_what_clients_make_up_is_no_label(tally: Tally) -> None:
    client = tally.customers
    client.request("GET", "/customers/1")
    client.request("GET", "/customers/99999")
    client.request("GET", "/secret/of/user1?x=y")
    client.request("MAKEUP", "/customers")
    client.request("PUT", "/customers/1")
    page = scrape(client)
    assert page.value(COUNT, method="GET", route="/customers/{id}", status="200") >= 1
    assert page.value(COUNT, method="GET", route="/customers/{id}", status="404") >= 1
    assert page.value(COUNT, method="GET", route="none", status="404") >= 1
    assert page.value(COUNT, method="other", status="400") >= 1
    assert page.value(COUNT, method="PUT", route="/customers/{id}", status="405") >= 1
    assert page.labels(COUNT, "route") <= ROUTES
    assert page.labels(COUNT, "method") == {"GET", "POST", "PUT", "other"}


def test_an_answer_that_is_streamed_counts_when_it_was_sent(tally: Tally) -> None:
    new = [{"name": "x" * 200, "account_id": "1"}] * 1000
    tally.customers.post("/customers/batch", new)
    eventually(tally.settled)
    counted = []
    for _ in range(2):
        assert len(tally.accounts.get("/accounts")[0]["customers"]) > 1000
        counted.append(scrape(tally.accounts).value(COUNT, method="GET", route="/accounts", status="200"))
    assert counted[1] == counted[0] + 1


def test_events_that_come_again_or_are_unknown_or_broken_are_counted_as_that(
    tally: Tally, stream: redis.Redis
) -> None:
    before = scrape(tally.accounts)
    published: Any = stream.xrange("event-stream")
    stream.xadd("event-stream", published[0][1])
    stream.xadd("event-stream", {"EventTypeName": "CustomerRenamed", "Payload": "{}"})
    stream.xadd("event-stream", {"EventTypeName": "AccountCreated", "Payload": "{}"})

    def more(sample: str) -> float:
        return scrape(tally.accounts).value(sample) - before.value(sample)

    eventually(lambda: more("tally_events_dead_lettered_total") == 1)
    eventually(lambda: more("tally_events_unknown_total") == 1)
    eventually(lambda: more("tally_events_duplicate_total") == 1)
    assert more("tally_events_applied_total") == 0
    assert more("tally_event_visible_seconds_count") == 0
    assert [scrape(client).value("tally_degraded") for client in _both(tally)] == [1, 1]
    assert scrape(tally.accounts).value("tally_dead_letters") == 2  # of both groups
    stream.xtrim("{event-stream}:dead", maxlen=0)


def test_seconds_until_visible_count_every_event_with_an_id_of_its_own(
    tally: Tally, stream: redis.Redis
) -> None:
    """Other publishers' dates may be anything: the seed shows one of the year 1."""
    eventually(tally.settled)
    before = scrape(tally.accounts)
    payload = (
        '{"id":"9","customer_id":"9","purchase_price_cents":5,'
        '"created_date":"0001-01-01T00:00:00Z","purchase_date":"2019-01-09"}'
    )
    stream.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": payload})
    eventually(lambda: _applied(scrape(tally.accounts)) == _applied(before) + 1)
    tally.customers.post("/invoices/batch", [INVOICE] * 20)
    eventually(lambda: _applied(scrape(tally.accounts)) == _applied(before) + 21)
    after = scrape(tally.accounts)
    counted = after.value("tally_event_visible_seconds_count")
    assert counted == before.value("tally_event_visible_seconds_count") + 20
    assert 0 < after.value("tally_event_visible_seconds_sum") < counted * 60


def test_without_redis_the_page_tells_the_rest_and_nothing_that_nobody_knows(tally: Tally) -> None:
    supervisor = psutil.Process(tally.process.pid)
    server = next(each for each in supervisor.children(recursive=True) if each.name().endswith("-server"))
    with _stopped(server.pid):
        tally.customers.post("/invoices", INVOICE)
        for client in _both(tally):
            page = scrape(client)
            assert page.value("tally_redis_up") == 0
            assert page.value("tally_scrape_success") == 4
            assert not any(
                page.has(f"tally_{name}") for name in ("lag_events", "pending_entries", "dead_letters")
            )
        assert scrape(tally.customers).value("tally_outbox_depth") >= 1
    eventually(lambda: scrape(tally.customers).value("tally_outbox_depth") == 0)
    eventually(lambda: scrape(tally.accounts).value("tally_redis_up") == 1)


def test_without_the_supervisor_the_page_tells_the_rest(tally: Tally) -> None:
    with _stopped(tally.process.pid):
        page = scrape(tally.accounts)
        assert page.value("tally_scrape_success", part="supervisor") == 0
        assert page.value("tally_scrape_success") == 3
        assert not page.has("tally_actor_up")
        assert _applied(page) > 0
    eventually(lambda: scrape(tally.accounts).value("tally_scrape_success") == 4)
    assert '"metrics_left_out"' in tally.said()


def test_without_its_database_a_service_tells_neither_the_outbox_nor_whether_redis_answers(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as tally:
        database = tmp_path / "data" / "customers.db"
        database.rename(tmp_path / "away")
        database.write_text("not a database " * 100)
        page = scrape(tally.customers)
        assert page.value("tally_degraded") == 1
        assert page.value("tally_scrape_success") == 4
        assert not page.has("tally_outbox_depth")
        assert not page.has("tally_redis_up")
        assert page.value("tally_actor_up") >= 1


def test_counting_goes_on_while_the_disk_is_full(tmp_path: Path) -> None:
    """Counters in mapped files, as is usual, would end each process with SIGBUS."""
    with (
        disks.tmpfs(tmp_path / "disk", 16) as disk,
        running(disk, data={"directory": str(disk / "data")}) as tally,
    ):
        pids = tally.pids()
        tally.customers.post("/customers", {"name": "Ada", "account_id": "1"})
        with disks.filled(disk):
            for path in ("/customers", "/invoices", "/customers/batch", "/invoices/batch"):
                eventually(partial(_refused, tally.customers, path))
            page = scrape(tally.customers)
            assert page.value(COUNT, status="503") >= 4
            assert page.value("tally_actor_up") == 3
        assert tally.pids() == pids


def _refused(client: Client, path: str) -> bool:
    one: dict[str, Any] = INVOICE if "invoices" in path else {"name": "Ada", "account_id": "1"}
    return client.request("POST", path, [one] * 100 if "batch" in path else one).status == 503


def _table_of_metrics() -> dict[str, tuple[str, set[str]]]:
    """The metrics that monitoring.md lists: the type and labels of each."""
    text = (OPERATIONS / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(tally_\w+)` \| (\w+) \| ?([\w, ]*?) ?\|", text, re.MULTILINE)
    return {name: (type, set(filter(None, labels.split(", ")))) for name, type, labels in rows}


def test_the_page_on_monitoring_lists_exactly_what_there_is(tally: Tally) -> None:
    found: dict[str, tuple[str, set[str]]] = {}
    for client in _both(tally):
        for family in scrape(client).families.values():
            labels = {label for sample in family.samples for label in sample.labels} - {"service", "le"}
            name = family.name + "_total" if family.type == "counter" else family.name
            found[name] = (family.type, labels)
    assert found == _table_of_metrics()


@pytest.mark.parametrize("file", ["alerts.yml", "grafana-dashboard.json", "alerts.md", "monitoring.md"])
def test_every_metric_that_is_named_to_operators_exists(tally: Tally, file: str) -> None:
    there = {
        sample.name
        for client in _both(tally)
        for family in scrape(client).families.values()
        for sample in family.samples
    } | {family.name for family in FAMILIES}
    named = set(re.findall(r"\btally_\w+", (OPERATIONS / file).read_text()))
    assert named
    assert named - there == set()


def test_every_label_that_the_dashboard_and_the_alerts_select_by_exists(tally: Tally) -> None:
    table = _table_of_metrics()
    for file in ("alerts.yml", "grafana-dashboard.json"):
        text = (OPERATIONS / file).read_text().replace('\\"', '"')
        selections = re.findall(r"(tally_\w+?)(?:_bucket|_sum|_count)?\{([^}]*)\}", text)
        assert selections
        for metric, selection in selections:
            labels = set(re.findall(r"(\w+)\s*=~?", selection))
            assert labels <= table[metric][1] | {"service"}, (metric, selection)
