"""The alert rules and the dashboard: Prometheus's own tool accepts them, and alerts fire when they should."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.promtool import promtool
from support.tally import ROOT

OPERATIONS = ROOT / "docs" / "operations"
ALERTS = OPERATIONS / "alerts.yml"
CASES = ROOT / "tests" / "data" / "alerts_test.yml"

NAMES = re.findall(r"alert: (\w+)", ALERTS.read_text())


def _dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())
    return content


def test_promtool_accepts_the_alert_rules() -> None:
    assert f"SUCCESS: {len(NAMES)} rules found" in promtool("check", "rules", ALERTS)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", CASES)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_in_which_it_fires(name: str) -> None:
    fires = re.compile(rf"alertname: {name}\n\s+exp_alerts:\n\s+- exp_labels")
    assert fires.search(CASES.read_text())


def test_every_alert_leads_to_its_part_of_the_runbook_and_every_part_to_an_alert() -> None:
    runbooks = re.findall(r"runbook: (\S+)", ALERTS.read_text())
    assert runbooks == [f"docs/operations/alerts.md#{name.lower()}" for name in NAMES]
    headings = re.findall(r"^## (\w+)$", (OPERATIONS / "alerts.md").read_text(), re.MULTILINE)
    assert headings == NAMES


def test_every_alert_says_how_urgent_it_is() -> None:
    severities = re.findall(r"severity: (\w+)", ALERTS.read_text().partition("groups:")[2])
    assert len(severities) == len(NAMES)
    assert set(severities) == {"page", "ticket"}


def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [
        target["expr"].replace("$__rate_interval", "5m").replace("$service", ".*")
        for panel in _dashboard()["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(expressions) > 20
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions)]
    file = tmp_path / "dashboard.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(expressions)} rules found" in promtool("check", "rules", file)


def test_the_dashboards_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_the_dashboard_asks_for_its_data_source_and_names_no_other() -> None:
    dashboard = _dashboard()
    assert [each["type"] for each in dashboard["templating"]["list"]] == ["datasource", "query"]
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
