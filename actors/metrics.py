"""Metrics of relays and consumers, and those that the supervisor has of a service's actors.

Everything is noted once for a batch, never for a single event: an event's path is hot code.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import psutil
import structlog
from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tally.actors.control import ActorStatus
from tally.events import EVENT_TYPES, TRACE_PARENT_FIELD, Event, EventId
from tally.figures import Family, Figures
from tally.http.requests import DURATION
from tally.store.cause import is_sampled, parse_trace_parent
from tally.store.outbox import OutboxRow
from tally.store.stream import Entry

_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_VISIBLE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

PUBLISHED = Family("tally_events_published_total", "Events that were put on the stream.")
PUBLISHING = Family(
    "tally_publish_duration_seconds", "How long Redis took to take in a batch of events.", (), _BATCH_SECONDS
)
APPLIED = Family(
    "tally_events_applied_total",
    "Events applied to the database, each once.",
    ("type",),
    known=tuple((name,) for name in EVENT_TYPES),
)
DUPLICATE = Family("tally_events_duplicate_total", "Events that came again and had no effect.")
UNKNOWN = Family(
    "tally_events_unknown_total", "Entries passed over, as this release doesn't know their type."
)
FAILURES = Family("tally_event_failures_total", "Attempts to handle an event that raised.")
DEAD = Family("tally_events_dead_lettered_total", "Events that became dead letters.")
APPLYING = Family(
    "tally_apply_duration_seconds", "How long a batch of events took to be applied and committed.", (),
    _BATCH_SECONDS,
)  # fmt: skip
VISIBLE = Family(
    "tally_event_visible_seconds",
    "Seconds from the change that an event tells of (its date, just before the commit) until it shows in this"
    " service, of those that change something in it; all of a batch count with the seconds of its first.",
    (),
    _VISIBLE_SECONDS,
)

FAMILIES = (
    DURATION, PUBLISHED, PUBLISHING, APPLIED, DUPLICATE, UNKNOWN, FAILURES, DEAD, APPLYING, VISIBLE,
)  # fmt: skip
"""All metrics that a service's processes count."""

MOST_TRACES = 50  # in one line: below 4 KiB, lines of several processes don't mix in a pipe


class Delivery(Struct, frozen=True, gc=False):
    """An entry and its event; None if events of its type don't concern the reader."""

    entry: Entry
    event: Event | None


class EventMetrics:
    """Counts the work of a relay, or of a consumer. Never blocks, raises nothing."""

    def __init__(self, figures: Figures | None = None) -> None:
        self._figures = figures or Figures()
        self._log = structlog.get_logger().bind()

    def after_publish(self, rows: Sequence[OutboxRow], taken: bool, seconds: float) -> None:
        """Count a batch that Redis has answered, `taken` or not, and how long that took."""
        self._figures.observe(PUBLISHING, seconds)
        if taken:
            traces = dict.fromkeys(row.trace_parent for row in rows if row.trace_parent)
            for level, told in _by_level(self._log, traces):
                self._log.log(
                    level, "published", events=len(rows), last=rows[-1].sequence, trace_parents=told
                )

    def advanced(self, events: int) -> None:
        """Count that the stream gained so many events; negative when Redis has lost some."""
        if events > 0:
            self._figures.add(PUBLISHED, events)

    def after_apply(self, batch: Sequence[Delivery], taken: Sequence[Delivery], seconds: float) -> None:
        """The batch is committed, after so many seconds.

        Events in `taken` were new; of these, those with an event had an effect.
        """
        self._figures.observe(APPLYING, seconds)
        applied = [each for each in taken if each.event]
        for kind, count in Counter([type(each.event) for each in applied]).items():
            self._figures.add(APPLIED, count, (kind.__name__,))
        if len(taken) < len(batch):
            self._figures.add(DUPLICATE, len(batch) - len(taken))
        # The dates of other publishers may be anything.
        if applied and applied[0].event and isinstance(applied[0].entry.event_name, EventId):
            age = time.time() - applied[0].event.happened.timestamp()  # the clock may have been set meanwhile
            self._figures.observe(VISIBLE, max(0.0, age), times=len(applied))
        concerned = [each.entry.fields for each in batch if each.event]
        traces = dict.fromkeys(
            fields[TRACE_PARENT_FIELD] for fields in concerned if TRACE_PARENT_FIELD in fields
        )
        for level, told in _by_level(self._log, (raw.decode(errors="replace") for raw in traces)):
            last = batch[-1].entry.id.decode()
            self._log.log(level, "applied", events=len(applied), last=last, trace_parents=told)

    def count(self, family: Family) -> None:
        """Count one event that was not applied: UNKNOWN, FAILURES or DEAD."""
        self._figures.add(family)


def traced(entry: Entry) -> dict[str, str]:
    """The trace fields of a log line about one event; empty when it has no trace."""
    trace = parse_trace_parent(entry.fields.get(TRACE_PARENT_FIELD, b"").decode(errors="replace"))
    return {"trace_parent": trace} if trace else {}


def actor_metrics(service: str, actors: Sequence[ActorStatus]) -> Iterator[Metric]:
    """The supervisor's metrics of a service's actors, with those that the operating system has."""
    each = ["service", "actor"]
    up = GaugeMetricFamily("tally_actor_up", "Whether the actor is at work: 1 or 0.", labels=each)
    restarts = CounterMetricFamily(
        "tally_actor_restarts_total", "How often it was started again.", labels=each
    )
    memory = GaugeMetricFamily("tally_actor_resident_memory_bytes", "Its resident memory.", labels=each)
    cpu = CounterMetricFamily("tally_actor_cpu_seconds_total", "Processor time it has used.", labels=each)
    for actor in actors:
        if not actor.name.startswith(f"{service}-"):
            continue
        labels = [service, actor.name]
        up.add_metric(labels, actor.state == "running")
        restarts.add_metric(labels, actor.restarts)
        if not actor.pid:
            continue
        with suppress(psutil.Error):  # it has just ended
            process = psutil.Process(actor.pid)
            memory.add_metric(labels, process.memory_info().rss)
            times = process.cpu_times()
            cpu.add_metric(labels, times.user + times.system)
    yield from (up, restarts, memory, cpu)


def _by_level(log: Any, traces: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The level of each log line and its traces: info for traces that their callers sample."""
    wanted = iter(traces) if log.is_enabled_for(logging.DEBUG) else filter(is_sampled, traces)
    known = list(filter(parse_trace_parent, wanted))
    for level, sampled in ((logging.INFO, True), (logging.DEBUG, False)):
        chosen = [trace for trace in known if is_sampled(trace) is sampled]
        for start in range(0, len(chosen), MOST_TRACES):
            yield level, chosen[start : start + MOST_TRACES]
