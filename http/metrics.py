"""GET /metrics: a service's figures for Prometheus, the same from each of its processes.

They are gathered in parts for each scrape. A part that is unavailable is left out, never guessed, and
`tally_scrape_success` says so. The other parts are still told.
"""

import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate

import falcon
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tally import figures
from tally.figures import Family
from tally.http.status import StatusReport

Part = Callable[[], Iterable[Metric]]
"""Gathers some metrics. May raise anything: then the part is left out."""

_log = structlog.get_logger()


class MetricsResource(Collector):
    """Tells every part, in the format that the client asks for: Prometheus text, or OpenMetrics."""

    def __init__(self, service: str, parts: Mapping[str, Part]) -> None:
        self._service = service
        self._parts = parts

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The service's metrics."""
        try:
            encode, resp.content_type = choose_encoder(req.accept)
        except (TypeError, ValueError):  # it names a version that is none
            encode, resp.content_type = choose_encoder("")
        resp.data = encode(self)

    def collect(self) -> Iterator[Metric]:
        """Every part that is available, and which those are."""
        success: list[tuple[tuple[str], float]] = []
        for name, part in self._parts.items():
            try:
                told, is_there = [*part()], 1
            except Exception as error:
                told, is_there = [], 0
                _log.warning("metrics_left_out", part=name, reason=f"{type(error).__name__}: {error}")
            success.append(((name,), is_there))
            yield from told
        about = "Whether this part could be gathered: 1 or 0."
        yield _gauge(self._service, "tally_scrape_success", about, success, "part")


def counted(service: str, families: Collection[Family], pages: Collection[mmap.mmap]) -> Iterator[Metric]:
    """The part that the service's processes count, each in its page."""
    sums = figures.sums(pages)
    for family in families:
        every = {series[1:]: numbers for series, numbers in sums.items() if series[0] == family.name}
        for labels in family.known:
            every.setdefault(labels, [0.0] * family.numbers)
        yield _metric(service, family, every)


def _metric(service: str, family: Family, every: Mapping[tuple[str, ...], list[float]]) -> Metric:
    labels = ["service", *family.labels]
    if not family.buckets:
        counter = CounterMetricFamily(family.name, family.help, labels=labels)
        for values, (number,) in every.items():
            counter.add_metric([service, *values], number)
        return counter
    histogram = HistogramMetricFamily(family.name, family.help, labels=labels)
    bounds = [*(str(float(bound)) for bound in family.buckets), "+Inf"]
    for values, (*buckets, total) in every.items():
        cumulated = list(zip(bounds, accumulate(buckets), strict=True))
        histogram.add_metric([service, *values], cumulated, total)
    return histogram


def limits(service: str, most: Mapping[str, int]) -> Iterator[Metric]:
    """The limits of the answering process; each of its siblings has the same."""
    values = [((of,), much) for of, much in most.items()]
    about = "How much of it there may be at once in an HTTP process."
    yield _gauge(service, "tally_http_limit", about, values, "of")


def status_metrics(probe: Callable[[], StatusReport]) -> Iterator[Metric]:
    """The metrics of the service's database and of Redis, without unavailable ones."""
    report = probe()
    service, redis = report.service, report.redis

    build = [((report.version, report.sqlite_version, report.identity or ""), 1)]
    labels = ("version", "sqlite_version", "identity")
    yield _gauge(service, "tally_build_info", "1; the labels tell what runs.", build, *labels)
    for name, help, value in (
        ("tally_degraded", "1 while GET /status is degraded; it tells why.", report.status != "ok"),
        ("tally_disk_free_bytes", "Free where the databases are.", report.disk_free_bytes),
        (
            "tally_database_log_bytes",
            "The database's write-ahead log, which grows while somebody reads without an end.",
            report.database_log_bytes,
        ),
        ("tally_outbox_depth", "Committed events not yet published.", report.outbox_depth),
        ("tally_redis_up", "Whether Redis answers this service: 1 or 0.", redis.reachable),
        (
            "tally_pending_entries",
            "Entries read by the service's consumers and not acknowledged.",
            redis.pending,
        ),
        (
            "tally_dead_letters",
            "Dead letters that wait for a decision; both services tell all there are, so don't add them up.",
            redis.dead_letters,
        ),
    ):
        if value is not None:
            yield _gauge(service, name, help, [((), value)])
    if redis.lag is not None:
        lag = [((source,), events) for source, events in redis.lag.items()]
        about = "Events published and not yet applied, by who published them."
        yield _gauge(service, "tally_lag_events", about, lag, "source")


def _gauge(
    service: str, name: str, help: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str
) -> GaugeMetricFamily:
    """A gauge of this service, with a value for each set of values of these labels."""
    gauge = GaugeMetricFamily(name, help, labels=["service", *labels])
    for of, value in values:
        gauge.add_metric([service, *of], value)
    return gauge
