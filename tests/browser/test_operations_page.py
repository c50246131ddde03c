"""A person uses the operations page in many ways."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from support import users
from support.browser import OpenWindow, Person, look_over
from support.redis_process import RedisProcess
from support.shop import Shop
from support.tally import Client, Tally, running
from support.waiting import eventually

DEAD = "{event-stream}:dead"
UNREADABLE: Any = {"EventTypeName": "AccountCreated", "Payload": '{"cents": 100}'}

WINDOWS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1440, "height": 900}},
    "a phone": {"viewport": {"width": 390, "height": 844}},
    "twice as large": {"viewport": {"width": 720, "height": 450}, "device_scale_factor": 2},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory, server: RedisProcess) -> Iterator[Tally]:
    """A Tally for this file only: every page shows its troubles."""
    with running(tmp_path_factory.mktemp("operations"), redis_url=server.url) as tally:
        assert tally.accounts.post("/accounts", {"name": "everyone", "owned_by": "all"})["id"] == "1"
        yield tally


@pytest.fixture
def letters(server: RedisProcess, tally: Tally) -> Iterator[RedisProcess]:
    """The Redis of a Tally with two dead letters of an event that neither service can read, and no others."""
    server.client.delete(DEAD)
    server.client.xadd(
        "event-stream", {**UNREADABLE, "EventId": f"shop:{server.client.xlen('event-stream')}"}
    )
    eventually(lambda: server.client.xlen(DEAD) == 2)
    eventually(tally.settled)
    yield server
    server.client.delete(DEAD)


def _see(page: Page, service: Client) -> None:
    page.goto(f"http://127.0.0.1:{service.port}/operations")
    expect(page.get_by_role("table", name="Actors").locator("tbody tr").first).to_be_visible()


def _figure(page: Page, name: str) -> Locator:
    return page.locator(".figures div", has_text=name).locator("dd")


def _reason(page: Page) -> Locator:
    return page.locator("#letters > li")


def _outcome(page: Page) -> Locator:
    return page.locator("#outcome")


@pytest.mark.parametrize("service", ["accounts", "customers"])
def test_the_page_of_either_service_tells_of_both(person: Person, tally: Tally, service: str) -> None:
    eventually(tally.settled)
    _see(person.page, getattr(tally, service))
    expect(person.page.get_by_role("region", name="State of Tally")).to_have_text(
        re.compile(r"^All is well· \d+\.\d s ago$")
    )
    for name in ("Not published yet", "Not applied yet", "Dead letters"):
        expect(_figure(person.page, name)).to_have_text("0")
    expect(_figure(person.page, "Memory of Redis")).to_have_text(re.compile(r"^[\d.]+ MB$"))
    actors = person.page.get_by_role("table", name="Actors").locator("tbody tr")
    expect(actors).to_have_count(len(tally.pids()))
    row = actors.filter(has_text="accounts-consumer-2").get_by_role("cell")
    expect(row).to_have_text(["running", re.compile(r"^(\d+ s|\d+ min)$"), "0"])
    expect(person.page.get_by_role("region", name="Dead letters")).to_be_hidden()


def test_what_comes_in_and_what_is_applied_moves_while_one_looks(person: Person, tally: Tally) -> None:
    eventually(tally.settled)
    _see(person.page, tally.accounts)
    recorded, applied = (
        person.page.get_by_role("img", name=re.compile(f"^{what} in the last hour: customers"))
        for what in ("Recorded", "Applied")
    )
    before = [int(_told(recorded, "customers")), int(_told(applied, "accounts"))]
    Shop(tally).customer("late")
    expect(recorded).to_have_accessible_name(re.compile(f": customers {before[0] + 1:,}, accounts"))
    expect(applied).to_have_accessible_name(re.compile(f", accounts {before[1] + 1:,};"))
    legend = person.page.get_by_role("region", name="Recorded in the last hour").locator("figcaption")
    expect(legend).to_contain_text(f"customers {before[0] + 1:,}")


def _told(chart: Locator, service: str) -> str:
    expect(chart).to_be_visible()
    found = re.search(rf"{service} ([\d,]+)", chart.get_attribute("aria-label") or "")
    assert found
    return found[1].replace(",", "")


def test_a_minute_is_told_where_one_points(person: Person, tally: Tally) -> None:
    _see(person.page, tally.accounts)
    chart = person.page.locator("#recorded svg")
    box = chart.bounding_box()
    assert box
    chart.hover(position={"x": box["width"] - 1, "y": box["height"] / 2})
    told = re.compile(r"\d\d:\d\d [AP]M: customers [\d,]+, accounts [\d,]+$")
    expect(person.page.locator("#recorded .axis").first).to_have_text(told)
    chart.hover(position={"x": 1, "y": box["height"] / 2})
    expect(person.page.locator("#recorded .axis").first).to_contain_text(
        "customers unknown, accounts unknown"
    )


def test_an_actor_that_was_started_again_is_told_so(person: Person, tally: Tally) -> None:
    _see(person.page, tally.accounts)
    row = person.page.get_by_role("row").filter(has_text="customers-consumer-1").get_by_role("cell")
    expect(row.last).to_have_text("0")
    tally.kill("customers-consumer-1")
    expect(row.last).to_have_text("1")
    expect(row.first).to_have_text("running")


def test_every_reader_of_the_stream_is_told_other_programs_too(
    person: Person, tally: Tally, server: RedisProcess
) -> None:
    Shop(tally).customer("Ada")
    eventually(tally.settled)
    server.client.xgroup_create("event-stream", "reports", id="0")
    server.client.xreadgroup("reports", "one", {"event-stream": ">"}, count=1)
    server.client.hset("{event-stream}:overtaken", "reports", "1234")
    try:
        _see(person.page, tally.accounts)
        groups = person.page.get_by_role("table", name="Readers of the stream").locator("tbody tr")
        expect(groups).to_have_count(3)
        reports = groups.filter(has_text="reports")
        length = server.client.xlen("event-stream")
        expect(reports.get_by_role("cell").nth(1)).to_have_text("1")
        expect(reports.get_by_role("cell").nth(2)).to_have_text(str(int(length) - 1))
        expect(reports).to_contain_text("of another program")
        expect(reports).to_contain_text("1,234 entries were removed before it had read them")
        expect(groups.filter(has_text="accounts@").get_by_role("cell").nth(2)).to_have_text("0")
    finally:
        server.client.xgroup_destroy("event-stream", "reports")
        server.client.hdel("{event-stream}:overtaken", "reports")


def test_other_nodes_are_told_where_there_are_any(browser: Browser, tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        address = {"number": 1, "url_accounts": "http://branch.example/accounts"}
        with (
            running(tmp_path / "first", redis_url=server.url) as first,
            running(tmp_path / "second", "--only", "accounts", redis_url=server.url, node=address),
        ):
            person = Person(browser)
            _see(person.page, first.accounts)
            nodes = person.page.get_by_role("table", name="Nodes").locator("tbody tr")
            expect(nodes.filter(has_text="http://branch.example/accounts")).to_have_text(
                "1http://branch.example/accounts0now"
            )
            expect(nodes.filter(has_text="0 (here)")).to_be_visible()
            person.leave()
    finally:
        server.kill()


# Dead letters


def test_letters_are_told_by_reason_and_each_with_what_it_holds(
    person: Person, tally: Tally, letters: RedisProcess
) -> None:
    letters.client.xadd("event-stream", {"EventTypeName": "InvoiceCreated", "Payload": "<b>no JSON</b>"})
    _see(person.page, tally.accounts)
    expect(person.page.get_by_role("region", name="State of Tally")).to_contain_text(
        "3 dead letters wait for a decision"
    )
    expect(_figure(person.page, "Dead letters")).to_have_text("3")
    expect(_reason(person.page).locator("h3")).to_have_text(
        [re.compile("missing required field `id`"), re.compile("JSON is malformed")]
    )
    first, second = _reason(person.page).all()
    expect(first).to_contain_text("2 dead letters, AccountCreated")
    expect(second).to_contain_text("1 dead letter, InvoiceCreated")
    expect(second.get_by_role("button")).to_have_count(0)  # this letter is all there is
    second.locator("summary").click()
    expect(second.get_by_label("Payload")).to_have_text("<b>no JSON</b>")
    first.locator("summary").first.press("Enter")
    payload = first.get_by_label("Payload").first
    expect(payload).to_have_text('{ "cents": 100 }')
    assert payload.inner_text() == '{\n  "cents": 100\n}'
    expect(first.locator("details").first).to_contain_text("EventIdshop:")
    expect(first.locator("details").first).to_contain_text("Triedonce")


def test_what_is_redriven_in_vain_is_said_to_have_failed_again(
    person: Person, tally: Tally, letters: RedisProcess
) -> None:
    _see(person.page, tally.customers)
    old = _reason(person.page).locator("details").first.element_handle()
    person.page.get_by_role("button", name="Redrive all").press("Enter")
    expect(_outcome(person.page)).to_have_text(
        "2 dead letters failed again: Payload: Object missing required field `id`."
    )
    old.wait_for_element_state("hidden")  # the list has been read again
    expect(_reason(person.page)).to_have_count(1)  # the reason is the same, though the letters are new ones
    expect(_reason(person.page)).to_contain_text("2 dead letters, AccountCreated")
    _reason(person.page).locator("summary").first.click()
    person.page.get_by_role("button", name="Redrive", exact=True).click()
    expect(_outcome(person.page)).to_contain_text("1 dead letter failed again")
    expect(person.page.get_by_role("heading", name="Dead letters")).to_be_focused()


def test_what_is_applied_now_is_said_so_and_is_in_the_totals(
    person: Person, tally: Tally, server: RedisProcess
) -> None:
    shop = Shop(tally)
    shop.customer("Ada")
    eventually(tally.settled)
    newest: Any = server.client.xrevrange("event-stream", count=1)
    group = f"accounts@{tally.accounts.get('/status')['identity']}"
    server.client.xadd(DEAD, {**newest[0][1], b"StreamId": b"1-1", b"Group": group, b"Reason": b"mended"})
    _see(person.page, tally.accounts)
    _reason(person.page).locator("summary").click()
    person.page.get_by_role("button", name="Redrive", exact=True).click()
    expect(_outcome(person.page)).to_have_text("1 dead letter applied: the totals have it now.")
    expect(_reason(person.page)).to_have_count(0)
    expect(_figure(person.page, "Dead letters")).to_have_text("0")
    expect(person.page.get_by_role("region", name="State of Tally")).to_contain_text("All is well")


def test_what_nobody_has_tried_yet_is_said_to_wait(
    person: Person, tally: Tally, letters: RedisProcess
) -> None:
    consumer = tally.kill("customers-consumer-1", signal.SIGSTOP)
    try:
        _see(person.page, tally.accounts)
        details = _reason(person.page).locator("details").filter(has_text="customers@")
        details.locator("summary").click()
        details.get_by_role("button", name="Redrive", exact=True).click()
        expect(_outcome(person.page)).to_contain_text("1 dead letter not tried yet")
    finally:
        if tally.pids().get("customers-consumer-1") == consumer:
            tally.kill("customers-consumer-1", signal.SIGCONT)
    eventually(lambda: letters.client.xlen(DEAD) == 2)  # both letters were tried, in vain


def test_what_is_discarded_is_gone_after_a_question(
    person: Person, tally: Tally, letters: RedisProcess
) -> None:
    _see(person.page, tally.accounts)
    person.page.get_by_role("button", name="Discard all").click()
    question = person.page.get_by_role("dialog", name="Discard 2 dead letters?")
    expect(question).to_contain_text("The totals never get what they tell. This can't be undone.")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    person.page.keyboard.press("Escape")
    expect(_reason(person.page)).to_have_count(1)
    assert letters.client.xlen(DEAD) == 2
    person.page.get_by_role("button", name="Discard all").click()
    question.get_by_role("button", name="Discard").click()
    expect(_outcome(person.page)).to_have_text("2 dead letters discarded.")
    expect(_reason(person.page)).to_have_count(0)
    assert letters.client.xlen(DEAD) == 0
    expect(person.page.get_by_role("region", name="State of Tally")).to_contain_text("All is well")


def test_what_somebody_else_has_decided_is_said_so(
    person: Person, tally: Tally, letters: RedisProcess
) -> None:
    _see(person.page, tally.accounts)
    button = person.page.get_by_role("button", name="Redrive all")
    expect(button).to_be_visible()
    person.page.route("**/operations/dead-letters", lambda route: route.abort())  # the page polls no more
    letters.client.delete(DEAD)
    button.click()
    expect(_outcome(person.page)).to_contain_text("somebody else has decided")
    person.page.unroute_all()
    expect(_reason(person.page)).to_have_count(0)
    person.expects("ERR_FAILED")


# Edited


@pytest.fixture
def bill(server: RedisProcess, tally: Tally) -> Iterator[None]:
    """One dead letter only: an invoice of 7.00 in account 1, whose price has a wrong name."""
    server.client.delete(DEAD)
    customer = Shop(tally).customer("Ada")
    eventually(tally.settled)
    number = 10**15 + server.client.xlen("event-stream")
    payload = (
        f'{{"id":"{number}","customer_id":"{customer}","cents":700,"created_date":"2019-01-06T12:00:00Z",'
        '"purchase_date":"2019-01-06"}'
    )
    event: Any = {"EventTypeName": "InvoiceCreated", "Payload": payload, "EventId": f"till:{number}"}
    server.client.xadd("event-stream", event)
    eventually(lambda: server.client.xlen(DEAD) == 1)
    yield
    server.client.delete(DEAD)


def _open_form(page: Page, tally: Tally) -> Locator:
    _see(page, tally.accounts)
    _reason(page).locator("summary").press("Enter")
    page.get_by_role("button", name="Edit and redrive").press("Enter")
    form = page.get_by_role("dialog", name="Edit InvoiceCreated and redrive")
    expect(form.get_by_label("Payload")).to_be_focused()
    return form


def test_a_letter_is_edited_by_keyboard_and_is_in_the_totals(
    person: Person, tally: Tally, bill: None
) -> None:
    before = tally.accounts.get("/accounts/1")["total_revenue_cents"]
    page = person.page
    form = _open_form(page, tally)
    payload = form.get_by_label("Payload")
    expect(payload).to_have_value(re.compile(r'^\{\n  "id": "1\d+",\n.*\n  "cents": 700,\n', re.DOTALL))
    expect(payload).to_have_accessible_description(re.compile("missing .* `purchase_price_cents`"))
    payload.fill(payload.input_value().replace("cents", "purchase_price_cents"))
    page.keyboard.press("Tab")
    expect(form.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(_outcome(page)).to_have_text("1 dead letter applied: the totals have it now.")
    expect(_reason(page)).to_have_count(0)
    expect(page.get_by_role("heading", name="Dead letters")).to_be_focused()
    eventually(lambda: tally.accounts.get("/accounts/1")["total_revenue_cents"] == before + 700)


def test_what_is_wrong_with_an_edit_is_said_at_the_field_and_nothing_is_done(
    person: Person, tally: Tally, server: RedisProcess, bill: None
) -> None:
    form = _open_form(person.page, tally)
    payload = form.get_by_label("Payload")
    for wrong, said in {
        '{"id": "7"}': r"This could not be applied as InvoiceCreated either: Payload: Object missing.*\.",
        "{": r"This could not be applied as InvoiceCreated either: Payload: Input data was truncated\.",
    }.items():
        payload.fill(wrong)
        form.get_by_role("button", name="Redrive").click()
        expect(payload).to_have_accessible_description(re.compile(said))
        expect(payload).to_be_focused()
        person.expects("422")
    person.page.keyboard.press("Escape")
    expect(person.page.get_by_role("button", name="Edit and redrive")).to_be_focused()
    assert server.client.xlen(DEAD) == 1


def test_an_edit_of_a_letter_that_somebody_else_has_decided_on_stays_to_be_read(
    person: Person, tally: Tally, server: RedisProcess, bill: None
) -> None:
    form = _open_form(person.page, tally)
    payload = form.get_by_label("Payload")
    payload.fill(right := payload.input_value().replace("cents", "purchase_price_cents"))
    server.client.delete(DEAD)
    form.get_by_role("button", name="Redrive").click()
    expect(form.get_by_role("alert")).to_contain_text("it was redriven, edited or discarded meanwhile.")
    expect(payload).to_have_value(right)
    person.expects("404")


def test_an_edit_is_sent_once_however_often_one_clicks(person: Person, tally: Tally, bill: None) -> None:
    asked: list[str] = []
    person.page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    _see(person.page, tally.accounts)
    _reason(person.page).locator("summary").click()
    person.page.get_by_role("button", name="Edit and redrive").dblclick()
    form = person.page.get_by_role("dialog")
    payload = form.get_by_label("Payload")
    payload.fill(payload.input_value().replace("cents", "purchase_price_cents"))
    form.get_by_role("button", name="Redrive").dblclick()
    expect(_outcome(person.page)).to_contain_text("1 dead letter applied")
    expect(form).to_have_count(0)
    (sent,) = [each for each in asked if each.startswith("POST")]
    assert sent.endswith("/operations/edit")


# No answer


def test_without_redis_what_is_known_is_told_and_what_is_not_is_unknown(
    browser: Browser, tmp_path: Path
) -> None:
    server = RedisProcess(tmp_path / "redis")
    server.start()
    try:
        with running(tmp_path, redis_url=server.url) as tally:
            person = Person(browser)
            _see(person.page, tally.accounts)
            state = person.page.get_by_role("region", name="State of Tally")
            expect(state).to_contain_text("All is well")
            server.kill()
            expect(state).to_contain_text("Degraded: totals may be behind")
            expect(state).to_contain_text("What is recorded is safe")
            for name in ("Not applied yet", "Dead letters", "Memory of Redis"):
                expect(_figure(person.page, name)).to_have_text("unknown")
            expect(_figure(person.page, "Not published yet")).to_have_text("0")
            Shop(tally).customer("Ada")
            expect(_figure(person.page, "Not published yet")).to_have_text("1")
            expect(person.page.get_by_role("table", name="Actors").locator("tbody tr")).to_have_count(7)
            server.start()
            expect(state).to_contain_text("All is well")
            expect(_figure(person.page, "Not published yet")).to_have_text("0")
            person.leave()
    finally:
        server.kill()


def test_where_only_one_service_runs_its_page_tells_of_it_and_that_the_other_does_not_answer(
    browser: Browser, tmp_path: Path
) -> None:
    with running(tmp_path, "--only", "customers", "--only", "redis") as tally:
        person = Person(browser)
        _see(person.page, tally.customers)
        state = person.page.get_by_role("region", name="State of Tally")
        expect(state).to_contain_text("The accounts service does not answer here.")
        recorded = person.page.get_by_role("img", name=re.compile("^Recorded"))
        expect(recorded).to_have_accessible_name(re.compile("accounts unknown"))
        actors = person.page.get_by_role("table", name="Actors").locator("tbody tr")
        expect(actors.filter(has_text="customers-relay")).to_contain_text("running")
        expect(actors.filter(has_text="redis")).to_contain_text("running")
        assert tally.stop() == 0
        notice = person.page.locator("#notice")
        expect(notice).to_have_text("The customers service does not answer. Trying again…")
        expect(state).to_contain_text("No answer")
        tally.start()
        expect(notice).to_be_hidden()
        person.expects("ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE")
        person.leave()


# Who may see it


def test_the_page_is_for_admins_and_others_see_nothing_of_it(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, auth={"mode": "jwt"}) as tally:
        users.add(tally, "root", admin=True)
        users.add(tally, "ana")
        for name, is_admin in (("ana", False), ("root", True)):
            person = Person(browser)
            page = person.page
            page.goto(f"http://localhost:{tally.accounts.port}/")
            page.get_by_label("User name").fill(name)
            page.get_by_label("Password").fill(users.PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("#strip")).to_contain_text("All is well")
            if is_admin:
                page.get_by_role("link", name="Operations").click()
                expect(page.get_by_role("row").filter(has_text="customers-relay")).to_be_visible()
                expect(page.get_by_text("This page is for admins.")).to_be_hidden()
            else:
                page.goto(f"http://localhost:{tally.accounts.port}/operations")
                expect(page.get_by_text("This page is for admins.")).to_be_visible()
                expect(page.get_by_role("table", include_hidden=True).locator("tbody tr")).to_have_count(0)
                page.goto(f"http://localhost:{tally.accounts.port}/")
                expect(page.locator("#strip")).to_contain_text("All is well")
                expect(page.get_by_role("link", name="Operations")).to_have_count(0)
            person.expects("401")
            person.leave()  # before the services end: the page polls them all the time


# How it looks


@pytest.mark.parametrize("size", WINDOWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_to_blame_and_nothing_sticks_out(
    window: OpenWindow, tally: Tally, letters: RedisProcess, scheme: Any, size: str
) -> None:
    page = window(reduced_motion="reduce", color_scheme=scheme, **WINDOWS[size]).page
    _see(page, tally.accounts)
    _reason(page).locator("summary").first.click()
    expect(page.get_by_label("Payload").first).to_be_visible()
    look_over(page)
    page.get_by_role("button", name="Edit and redrive").first.click()
    expect(page.get_by_role("dialog").get_by_label("Payload")).to_be_focused()
    look_over(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Discard all").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    look_over(page)
