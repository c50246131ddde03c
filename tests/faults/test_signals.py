"""Stopped and continued processes, and the supervisor's own signals, while invoices are posted."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import urllib3

from support.load import Load
from support.redis_process import RedisProcess
from support.tally import Tally, running
from support.threads import stopped as stopped_thread
from support.troubles import actors, troubles
from support.waiting import eventually

STAYS = "redis"


@pytest.fixture
def watchful(tmp_path: Path) -> Iterator[Tally]:
    """A Tally that replaces hanging actors after two seconds, and takes over pending entries after one."""
    with running(
        tmp_path,
        supervisor={"heartbeat_timeout": 2},
        consumers={"claim_idle_ms": 1000, "batch": 20},
        customers={"processes": 2},
    ) as tally:
        yield tally


@pytest.mark.parametrize("actor", ["accounts-consumer-1", "customers-relay", "customers-http-1"])
def test_what_hangs_is_replaced_with_its_stack_in_the_log(watchful: Tally, actor: str) -> None:
    with Load(watchful) as load, Load(watchful, kept=False) as others:
        load.goes_on()
        stopped = watchful.kill(actor, signal.SIGSTOP)
        shown = others.shown()
        eventually(lambda: watchful.pids().get(actor, stopped) != stopped)
        eventually(lambda: not psutil.pid_exists(stopped))
        load.goes_on()
        others.goes_on()
        eventually(lambda: others.shown() > shown)
    load.is_counted_once()
    others.is_counted_once()
    said = watchful.said()
    assert said.count("actor_hangs") == 1
    assert f'"hangs": "{actor}"' in said
    assert "Fatal Python error: Aborted" in said
    assert "most recent call first" in said


def test_an_http_process_whose_writing_thread_hangs_is_replaced(watchful: Tally) -> None:
    hangs = watchful.pids()["accounts-http-1"]
    account = {"name": "a", "owned_by": "u"}
    before = _worked(hangs)
    for _ in range(300):
        watchful.accounts.post("/accounts", account)
    writer = max(before, key=lambda thread: _worked(hangs)[thread] - before[thread])
    with ThreadPoolExecutor(1) as threads:
        with stopped_thread(writer):
            posted = threads.submit(watchful.accounts.request, "POST", "/accounts", account)
            watchful.accounts.get("/accounts?limit=1")  # everything else works as usual
            eventually(lambda: "actor_hangs" in watchful.said())
        eventually(lambda: watchful.pids().get("accounts-http-1", hangs) != hangs)
        assert isinstance(posted.exception(), urllib3.exceptions.HTTPError)
    eventually(lambda: "_serve" in watchful.said())  # the stack of the hanging thread
    assert watchful.said().count("actor_hangs") == 1
    watchful.accounts.post("/accounts", account)


def _worked(pid: int) -> dict[int, float]:
    """The processor time of each thread except the main one."""
    return {
        each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads() if each.id != pid
    }


def test_an_actor_that_can_t_be_started_now_is_started_later_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    """The supervisor ended, and all others with it."""
    with running(tmp_path) as tally:
        supervisor, before = psutil.Process(tally.process.pid), tally.pids()
        free = supervisor.rlimit(psutil.RLIMIT_NOFILE)
        with Load(tally) as load:
            supervisor.rlimit(psutil.RLIMIT_NOFILE, (supervisor.num_fds(), free[1]))
            tally.kill("accounts-consumer-1")
            eventually(lambda: tally.said().count("can't be started") > 2)
            load.goes_on()
            supervisor.rlimit(psutil.RLIMIT_NOFILE, free)
            eventually(lambda: tally.pids().keys() == before.keys())
        load.is_counted_once()
        del before["accounts-consumer-1"]
        assert before.items() <= tally.pids().items()


@pytest.mark.parametrize("actor", ["accounts-consumer-1", "customers-relay", "customers-http-1"])
def test_what_was_stopped_and_goes_on_counts_nothing_twice(tmp_path: Path, actor: str) -> None:
    with running(
        tmp_path,
        supervisor={"heartbeat_timeout": 60},
        consumers={"claim_idle_ms": 100, "batch": 20},
        customers={"processes": 2},
    ) as tally:
        with Load(tally, kept=False, patience=2) as load:
            load.goes_on()
            before = tally.pids()
            for _ in range(3):
                accepted, shown, told = load.accepted(), load.shown(), _locked_out(tally)
                stopped = tally.kill(actor, signal.SIGSTOP)

                def others_work(accepted: int = accepted, shown: int = shown) -> bool:
                    return load.accepted() > accepted + 100 and (
                        actor == "customers-relay" or load.shown() > shown
                    )

                # If it was stopped in the middle of a transaction, they can't write, and log that.
                eventually(lambda: others_work() or _locked_out(tally) > told)  # noqa: B023
                os.kill(stopped, signal.SIGCONT)
                load.goes_on()
                eventually(lambda: not troubles(tally))  # a trouble that lasts would not be logged again
            assert tally.pids() == before
        load.is_counted_once()
        assert set(load.faults()) <= {("unanswered", False)}  # by the stopped process; the load tried again
        assert {each.status for each in load.tries()} <= {201, 503, None}


def _locked_out(tally: Tally) -> int:
    """How often an actor had to give up waiting for another's transaction."""
    return tally.said().count("database is locked")


def test_the_shortest_heartbeat_timeout_leaves_the_living_alone(tmp_path: Path) -> None:
    with running(tmp_path, supervisor={"heartbeat_timeout": 2}) as tally, Load(tally) as load:
        before = tally.pids()
        for _ in range(5):
            load.goes_on(200)
        load.__exit__(None, None, None)
        load.is_counted_once()
        assert "actor_hangs" not in tally.said()
        assert tally.pids() == before


def test_sigterm_answers_what_was_accepted(tmp_path: Path) -> None:
    with running(tmp_path, customers={"processes": 2}) as tally:
        with Load(tally, clients=8) as kept, Load(tally, clients=8, kept=False) as fresh:
            for _ in range(2):
                kept.goes_on()
                fresh.goes_on()
                assert tally.stop() == 0
                tally.start()
            kept.goes_on()
            fresh.goes_on()
        kept.is_counted_once()
        fresh.is_counted_once()
        assert {each.status for each in kept.tries() + fresh.tries()} <= {201, None}
        lost = kept.faults() + fresh.faults()
        assert not {fault for fault in lost if fault[0] == "unanswered"}, dict(lost)


@pytest.mark.parametrize(("kept", "processes"), [(True, 1), (False, 1), (True, 2)])
def test_sighup_refuses_no_request(tmp_path: Path, kept: bool, processes: int) -> None:
    with running(tmp_path, customers={"processes": processes}) as tally:
        with Load(tally, clients=8, kept=kept) as load:
            load.goes_on()
            before = tally.pids()
            tally.process.send_signal(signal.SIGHUP)
            eventually(lambda: _renewed(tally, before))
            load.goes_on()
        load.is_counted_once()
        assert {each.status for each in load.tries() if each.status} == {201}
        assert load.faults() == {}


@pytest.mark.parametrize("ended", ["all, by SIGHUP", "customers-relay", "customers-http-1"])
def test_whatever_is_started_again_under_load_gives_the_next_numbers(tmp_path: Path, ended: str) -> None:
    with running(tmp_path) as tally:
        with Load(tally, clients=8, pace=0.001) as load:
            for _ in range(3):
                load.goes_on()
                before = tally.pids()
                if ended in before:
                    tally.kill(ended)
                    eventually(lambda: tally.pids().get(ended, before[ended]) != before[ended])  # noqa: B023
                else:
                    tally.process.send_signal(signal.SIGHUP)
                    eventually(lambda: _renewed(tally, before))  # noqa: B023
            load.goes_on()
        load.is_counted_once()
        numbers = sorted(int(invoice.id or 0) for invoice in load.invoices)
        assert numbers == [*range(1, len(numbers) + 1)]
        assert "began_name" not in tally.said()
        with redis.Redis.from_url(tally.redis_url) as client:
            names: Any = client.hkeys("{event-stream}:published")
        assert sorted(name.partition(b"@")[0] for name in names) == [b"accounts", b"customers"]


def test_sighup_lets_no_copy_begin_meanwhile(tmp_path: Path, server: RedisProcess) -> None:
    """The relays gave up their leases, and the HTTP processes went on recording."""
    leases = "{event-stream}:leases"
    with running(tmp_path, redis_url=server.url) as tally:
        before = tally.pids()
        tally.process.send_signal(signal.SIGHUP)

        def renewed() -> bool:
            assert {server.client.hlen(leases) for _ in range(200)} == {2}
            return {*before.values()}.isdisjoint(tally.pids().values())

        while not renewed():
            pass
        assert tally.stop() == 0
        assert server.client.hlen(leases) == 0


def test_sighup_twice_renews_one_after_another(tmp_path: Path) -> None:
    with running(tmp_path, customers={"processes": 2}) as tally:
        with Load(tally, clients=4) as load:
            load.goes_on()
            before = tally.pids()
            seen = [before]
            tally.process.send_signal(signal.SIGHUP)
            tally.process.send_signal(signal.SIGHUP)

            def done() -> bool:
                now = tally.pids()
                # They are read one by one: only what is the same twice was so at any moment.
                if now != seen[-1] and now == tally.pids():
                    seen.append(now)
                return _renewed(tally, before) and _is_quiet(tally)

            eventually(done)
            load.goes_on()
        load.is_counted_once()
        assert tally.pids()[STAYS] == before[STAYS]
        for now in seen:
            assert len(set(before) - set(now)) <= 1, "more than one actor was away at a time"
        assert "actor_ended" not in tally.said()


def _renewed(tally: Tally, before: dict[str, int]) -> bool:
    """Whether every actor has a new process, except Redis, which keeps its old one."""
    now = tally.pids()
    return set(now) == set(before) and all((now[name] == before[name]) == (name == STAYS) for name in before)


def _is_quiet(tally: Tally) -> bool:
    """Whether every actor runs and no restart is left to do."""
    return {actor.state for actor in actors(tally.directory / "data")} == {"running"}
