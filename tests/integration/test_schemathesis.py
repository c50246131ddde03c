"""Schemathesis makes up requests from the document of each service, and finds nothing.

All of its checks are on, in all of its phases: examples, coverage, fuzzing, stateful. Each service
has a Tally of its own, so that a customer that one run made isn't deleted with an account by the other.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from integration.conftest import invoice, new_account, new_customer

from support.tally import ROOT, Tally, running

REQUESTS = 5_000
FUZZED = {"customers": 450, "accounts": 780}  # cases for each call that takes anything
SEED = os.environ.get("TALLY_TEST_SCHEMATHESIS_SEED", "20190106")
SETTINGS = """
continue-on-failure = true
[phases.fuzzing.generation]
max-examples = {fuzzed}
[phases.stateful]
max-steps = 20
[phases.stateful.generation]
max-examples = 50
"""
NO_ACCOUNT = str(2**63 - 1)  # none gets so far


class Run(NamedTuple):
    """A run of schemathesis that has ended."""

    status: int
    said: str
    answers: int
    phases: dict[str, str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Both services, at the same time."""
    directory = tmp_path_factory.mktemp("schemathesis")
    with (
        _run(directory / "customers", "customers") as customers,
        _run(directory / "accounts", "accounts") as accounts,
    ):
        return {"customers": _finished(*customers), "accounts": _finished(*accounts)}


@contextmanager
def _run(directory: Path, service: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with running(directory) as tally:
        settings = directory / "schemathesis.toml"
        settings.write_text(SETTINGS.format(fuzzed=FUZZED[service]))
        port = tally.settings[service]["port"]
        process = subprocess.Popen(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", settings,
                "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "all",
                "--phases", "examples,coverage,fuzzing,stateful", "--seed", SEED,
                "--report", "json", "--report-json-path", directory / "report.json", "--no-color",
            ],
            cwd=directory,
            env=os.environ | {
                "PYTHONPATH": str(ROOT / "tests"),
                "SCHEMATHESIS_HOOKS": "support.schemathesis_hooks",
                "TALLY_TEST_CUSTOMER": _filled(tally),
                "TALLY_TEST_ANSWERS": str(directory / "answers"),
            },
            stdout=(directory / "said").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        try:
            yield process, directory
        finally:
            process.kill()
            process.wait()


def _filled(tally: Tally) -> str:
    """What the documents' examples refer to is there; answers a customer that nothing else refers to."""
    account_id = new_account(tally.accounts)
    customer_id = new_customer(tally.customers, account_id)
    tally.customers.post("/invoices/batch", [invoice(customer_id)] * 3)
    many = [{"name": "nobody's", "account_id": NO_ACCOUNT}] * 1000
    ids: list[str] = tally.customers.post("/customers/batch", many)["ids"]
    return ids[-1]


def _finished(process: subprocess.Popen[str], directory: Path) -> Run:
    status = process.wait(600)
    report = json.loads((directory / "report.json").read_text())
    phases = {name: phase["status"] for name, phase in report["phases"].items()}
    return Run(status, (directory / "said").read_text(), int((directory / "answers").read_text()), phases)


@pytest.mark.parametrize("service", ["customers", "accounts"])
def test_schemathesis_finds_nothing(runs: dict[str, Run], service: str) -> None:
    run = runs[service]
    print(run.said)  # with the seed
    assert run.status == 0, run.said[-10_000:]
    assert run.phases == dict.fromkeys(["examples", "coverage", "fuzzing", "stateful"], "success")
    assert run.answers >= REQUESTS
