"""Schemathesis generates requests from each service's document, and finds no fault.

All its checks run in all its phases: examples, coverage, fuzzing, stateful. Each service has its own
Tally, because one run could delete an account with customers that the other run needs.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from integration.conftest import invoice, new_account, new_customer

from support.tally import ROOT, Tally, running

REQUESTS = 5_000  # to each service
SEED = os.environ.get("TALLY_TEST_SCHEMATHESIS_SEED", "20190106")
NO_ACCOUNT = str(2**63 - 1)  # no account gets this far

# All phases, with good and bad requests. Bad ones are slow to generate. A few are enough, because the
# coverage phase makes each kind of mistake once.
THOROUGH = """
[generation]
database = "none"
[phases.fuzzing.generation]
max-examples = 40
[phases.stateful]
max-steps = 20
[phases.stateful.generation]
max-examples = 30
"""
# Many good requests: {cases} for each call that takes anything.
NUMEROUS = """
[generation]
database = "none"
mode = "positive"
max-examples = {cases}
[phases]
enabled = false
[phases.fuzzing]
enabled = true
[phases.fuzzing.extra-data-sources]
responses = false
"""
OF_A_CASE = {"customers": 22, "accounts": 14}  # so many requests: one to each of these calls
SPARE_CASES = 5


class Run(NamedTuple):
    """A finished run of schemathesis."""

    status: int
    said: str
    answers: int
    phases: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Run]]:
    """Two runs over each service, both services at the same time."""
    directory = tmp_path_factory.mktemp("schemathesis")
    with ThreadPoolExecutor() as pool:
        return dict(
            zip(OF_A_CASE, pool.map(lambda each: _runs(directory / each, each), OF_A_CASE), strict=True)
        )


def _runs(directory: Path, service: str) -> list[Run]:
    with running(directory) as tally:
        url = f"http://127.0.0.1:{tally.settings[service]['port']}/openapi.json"
        customer_id = _filled(tally)
        thorough = _run(directory / "thorough", THOROUGH, url, customer_id)
        # How many it made depends on what it was answered, in the stateful phase.
        cases = (REQUESTS - thorough.answers) // OF_A_CASE[service] + SPARE_CASES
        return [thorough, _run(directory / "numerous", NUMEROUS.format(cases=cases), url, customer_id)]


def _filled(tally: Tally) -> str:
    """Create the rows that the documents' examples name; return a customer that nothing else refers to."""
    account_id = new_account(tally.accounts)
    customer_id = new_customer(tally.customers, account_id)
    tally.customers.post("/invoices/batch", [invoice(customer_id)] * 3)
    many = [{"name": "nobody's", "account_id": NO_ACCOUNT}] * 1000
    ids: list[str] = tally.customers.post("/customers/batch", many)["ids"]
    return ids[-1]


def _run(directory: Path, settings: str, url: str, customer_id: str) -> Run:
    directory.mkdir()
    (directory / "schemathesis.toml").write_text(settings)
    answers, report = directory / "answers", directory / "report.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", url, "--checks", "all", "--seed", SEED,
            "--continue-on-failure", "--no-color", "--report", "json", "--report-json-path", report,
        ],
        cwd=directory,
        env=os.environ | {
            "PYTHONPATH": str(ROOT / "tests"),
            "SCHEMATHESIS_HOOKS": "support.schemathesis_hooks",
            "TALLY_TEST_CUSTOMER": customer_id,
            "TALLY_TEST_ANSWERS": str(answers),
        },
        capture_output=True,
        text=True,
    )  # fmt: skip
    phases = json.loads(report.read_text())["phases"]
    passed = [name for name, phase in phases.items() if phase["status"] == "success"]
    return Run(done.returncode, done.stdout + done.stderr, int(answers.read_text()), passed)


@pytest.mark.parametrize("service", OF_A_CASE)
def test_schemathesis_finds_nothing(runs: dict[str, list[Run]], service: str) -> None:
    thorough, numerous = runs[service]
    for run in (thorough, numerous):
        print(run.said)  # it names the seed too
        assert run.status == 0, run.said[-10_000:]
    assert thorough.phases == ["examples", "coverage", "fuzzing", "stateful"]
    assert numerous.phases == ["fuzzing"]
    assert thorough.answers + numerous.answers >= REQUESTS
