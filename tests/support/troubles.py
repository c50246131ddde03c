"""The actors and their troubles, as `supervisor.py status` shows them."""

import re
from pathlib import Path

from support.tally import Tally
from tally.actors import control


def actors(data: Path) -> list[control.ActorStatus]:
    """The actors of the supervisor in this data directory.

    Raises AssertionError if it doesn't answer within 0.2 s, which happens on a busy machine.
    """
    try:
        return control.ask(data)
    except control.NotRunning as error:
        raise AssertionError(str(error)) from error


def troubles(tally: Tally) -> dict[str, str]:
    """The troubles by actor, without actors that have none. Raises AssertionError like `actors`."""
    return {each.name: each.trouble for each in actors(tally.directory / "data") if each.trouble}


def troubled(tally: Tally, reason: str) -> set[str]:
    """The actors whose trouble matches the pattern `reason`; case is ignored."""
    return {name for name, trouble in troubles(tally).items() if re.search(reason, trouble, re.IGNORECASE)}
