"""What the actors of a running Tally wait out, as `supervisor.py status --json` shows it."""

import json
import re

from support.cli import command
from support.tally import Tally


def troubles(tally: Tally) -> dict[str, str]:
    """The troubles by actor; those that have none are not in it."""
    run = command("status", "--json", "--config", tally.directory / "tally.toml")
    assert run.returncode == 0, run.stderr
    actors = json.loads(run.stdout)["actors"]
    return {actor["name"]: actor["trouble"] for actor in actors if actor["trouble"]}


def troubled(tally: Tally, reason: str) -> set[str]:
    """The actors whose trouble matches the pattern `reason`, in any case."""
    return {name for name, trouble in troubles(tally).items() if re.search(reason, trouble, re.IGNORECASE)}
