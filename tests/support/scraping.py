"""The metrics of a service at GET /metrics, read by the reference parsers."""

from typing import Any, NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from support.tally import Client

_parse_text: Any = text_string_to_metric_families
_parse_openmetrics: Any = openmetrics.text_string_to_metric_families

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Scrape(NamedTuple):
    """One page of metrics."""

    text: str
    families: dict[str, Metric]

    def value(self, sample: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels. Fails if there is none."""
        found = [
            each.value
            for family in self.families.values()
            for each in family.samples
            if each.name == sample and labels.items() <= each.labels.items()
        ]
        assert found, f"no {sample} {labels}"
        return sum(found)

    def has(self, sample: str) -> bool:
        """Whether there is a sample of that name."""
        return any(each.name == sample for family in self.families.values() for each in family.samples)

    def labels(self, sample: str, label: str) -> set[str]:
        """The values of a sample's label."""
        return {
            each.labels[label]
            for family in self.families.values()
            for each in family.samples
            if each.name == sample
        }


def scrape(client: Client) -> Scrape:
    """The page as Prometheus text."""
    response = client.request("GET", "/metrics")
    assert response.status == 200, response.data
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = response.data.decode()
    return Scrape(text, {family.name: family for family in _parse_text(text)})


def scrape_openmetrics(client: Client) -> Scrape:
    """The page as OpenMetrics."""
    response = client.request("GET", "/metrics", headers={"Accept": OPENMETRICS})
    assert response.status == 200, response.data
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    text = response.data.decode()
    return Scrape(text, {family.name: family for family in _parse_openmetrics(text)})
