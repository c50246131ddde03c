"""The actors' troubles that `supervisor.py status` shows."""

import re

from support.tally import Tally
from tally.actors import control


def troubles(tally: Tally) -> dict[str, str]:
    """The troubles by actor, without actors that have none. Fails if the supervisor doesn't answer."""
    try:
        actors = control.ask(tally.directory / "data")
    except control.NotRunning as error:
        raise AssertionError(str(error)) from error
    return {actor.name: actor.trouble for actor in actors if actor.trouble}


def troubled(tally: Tally, reason: str) -> set[str]:
    """The actors whose trouble matches the pattern `reason`; case is ignored."""
    return {name for name, trouble in troubles(tally).items() if re.search(reason, trouble, re.IGNORECASE)}
