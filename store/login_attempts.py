"""Attempts to sign in: after some failures the next must wait, longer each time, up to a minute.

They are counted by user and by client address, in accounts.db, so that all HTTP processes count together.
"""

import ipaddress
import time
from collections.abc import Callable
from typing import NamedTuple

from tally.store.database import Database

SCHEMA = """
CREATE TABLE login_attempt (
    origin TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    last_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_attempt_by_age ON login_attempt (last_at);
"""

FORGOTTEN_SECONDS = 15 * 60.0


class Limit(NamedTuple):
    """So many failures are free; then the wait doubles from a second up to `longest` seconds."""

    free: int
    longest: float

    def wait(self, failures: int) -> float:
        """How many seconds lie between the last failure and the next attempt."""
        beyond = failures - self.free
        return min(2.0 ** min(beyond, 30), self.longest) if beyond >= 0 else 0.0


# A user must get in even while others try under the same name, so the wait stays short.
BY_USER = Limit(free=5, longest=30)
BY_ADDRESS = Limit(free=20, longest=60)  # many users may share an address
BY_SITE = Limit(free=60, longest=60)  # the owner of an IPv6 /48 has 65,536 networks


class LoginAttempts:
    """Recent failed attempts to sign in. Every method runs in a transaction."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def wait(self, username: str, address: str) -> float:
        """How many seconds an attempt must wait; changes nothing."""
        now, waits = self._clock(), [0.0]
        sql = "SELECT failures, last_at FROM login_attempt WHERE origin = ?"
        for origin, limit in _origins(username, address).items():
            for failures, last_at in self._database.rows(sql, (origin,)):
                if now >= last_at:  # else the clock was set back
                    waits.append(limit.wait(failures) - (now - last_at))
        return max(waits)

    def begin(self, username: str, address: str) -> float:
        """Answer 0 and count a failure before anything is checked, or answer the seconds to wait first.

        Counting first keeps attempts at the same moment from getting around the limit.
        """
        now = self._clock()
        self._database.execute("DELETE FROM login_attempt WHERE last_at < ?", (now - FORGOTTEN_SECONDS,))
        wait = self.wait(username, address)
        if wait == 0:
            self._database.executemany(
                "INSERT INTO login_attempt VALUES (?1, 1, ?2) ON CONFLICT (origin)"
                " DO UPDATE SET failures = failures + 1, last_at = ?2",
                [(origin, now) for origin in _origins(username, address)],
            )
        return wait

    def succeeded(self, username: str, address: str) -> None:
        """Note that the attempt was no failure.

        The address's earlier failures still count: the owner of one password could guess others in between.
        """
        user, *places = _origins(username, address)
        self._database.execute("DELETE FROM login_attempt WHERE origin = ?", (user,))
        sql = "UPDATE login_attempt SET failures = failures - 1 WHERE origin = ?"
        self._database.executemany(sql, [(place,) for place in places])


def _origins(username: str, address: str) -> dict[str, Limit]:
    """The origins whose failures count, the user first."""
    places = zip(_networks(address), (BY_ADDRESS, BY_SITE), strict=False)
    return {f"user {username}": BY_USER, **{f"from {place}": limit for place, limit in places}}


def _networks(address: str) -> list[str]:
    """The address without a port. For an IPv6 client, the networks that it may own: a /64, and then a /48."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]") if port.isdigit() and (":" not in host or host.startswith("[")) else address
    try:
        parsed = ipaddress.ip_address(bare.strip("[]"))
    except ValueError:
        return [address[:100]]
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.version == 4:
        return [str(parsed)]
    return [str(ipaddress.ip_network((parsed, length), strict=False)) for length in (64, 48)]
