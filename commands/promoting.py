"""`promote`: a standby takes its primary's place, as a person says."""

from collections.abc import Callable
from contextlib import closing

from tally.actors.services import SERVICES
from tally.config import Settings
from tally.store import customers, nodes
from tally.store.errors import StoreError
from tally.store.membership import Candidate, Membership, at_work, leases_of, promote
from tally.store.stream import EventStream


class CannotPromote(StoreError):
    """There is nothing to promote here, or it was not confirmed; the message says which."""


def candidates(settings: Settings, stream: EventStream) -> list[Candidate]:
    """The databases in the data directory that follow a primary; Redis knows then what they know of it.

    Raises CannotPromote, StoreError or RedisError.
    """
    node, found = settings.node, []
    for name, service in SERVICES.items():
        if (settings.directory / f"{name}.db").exists():
            with closing(service.open(settings.directory, make=False)) as database:
                url = node.url_customers if name == customers.SERVICE else node.url_accounts
                if nodes.differs(database):
                    raise CannotPromote(
                        f"{database.path} has something that the primary did not take over: begin it again "
                        "from a `backup` of the primary, with `join`"
                    )
                if nodes.follows(database):
                    Membership(database, stream, url).take()
                    found.append(Candidate(database.source, url))
    return found


def promote_here(settings: Settings, stream: EventStream, confirm: Callable[[str], bool]) -> str:
    """Promote the databases in the data directory, once that is confirmed, and tell so.

    Raises CannotPromote, StoreError or RedisError.
    """
    found, number = candidates(settings, stream), settings.node.number
    if not found:
        raise CannotPromote(f"{settings.directory} has no standby's databases: it is a primary's, or empty")
    old = sorted(leases_of(stream, number))
    working = [name for name in old if at_work(stream, name)]
    told = f"node {number} goes on here, as {' and '.join(each.source for each in found)}"
    if working:
        told += f". {' and '.join(working)} is at work now, and becomes a standby"
    if not confirm(told):
        raise CannotPromote("not confirmed, so nothing was changed; --yes confirms beforehand")
    promote(stream, number, found)
    return f"promoted: {told}"
