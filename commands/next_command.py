"""The next command to run, ready to copy."""

import re
import shlex
from collections.abc import Sequence

import click

from tally.http.reasons import REDIS_AWAY

_NAMED = re.compile("`([^`]+)`( at node)?")
_INSTEAD = {"groups remove": "groups list", "nodes remove": "nodes list", "join": "join DIR"}
"""A reason names a removal only under a condition: so look first."""


def against(reasons: Sequence[str], dead_letters: bool) -> str | None:
    """The command against the gravest problem, without the program's name; None if there is none."""
    if any(reason.startswith(REDIS_AWAY) for reason in reasons):
        return "check"
    remedies = (remedy for reason in reasons if (remedy := _remedy(reason)))
    return next(remedies, "dead-letters list" if dead_letters else None)


def called(words: str) -> str:
    """The command as it is called here: by this program's name, with its settings."""
    context = click.get_current_context()
    name, file = context.find_root().info_name or "tally", context.obj
    return f"{name} {words}{f' --config {shlex.quote(str(file))}' if file else ''}"


def _remedy(reason: str) -> str | None:
    """The first command of ours that the reason names."""
    root = click.get_current_context().find_root().command
    ours = root.commands if isinstance(root, click.Group) else {}
    for found in _NAMED.finditer(reason):
        words = found[1].split()
        if words[0] in ours and not found[2]:  # a command for another node is not next here
            return _INSTEAD.get(" ".join(words[:2])) or " ".join(words)
    return None
