"""Whether the Redis at a URL is one that Tally can work with: `run` and `check` ask this alone."""

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError

from tally.actors.redis_binaries import OLDEST_REDIS
from tally.store.stream import connect

FARTHEST_CLOCK_SECONDS = 60

_ANSWER_SECONDS = 0.5  # twice that, to connect and to answer


class Seen(NamedTuple):
    """A description of the server, and its faults."""

    what: str
    faults: list[str]

    def __str__(self) -> str:
        return "; ".join([self.what, *self.faults])


def inspect(url: str) -> Seen | None:
    """Look at the server at `url`, be it to hear that it refuses; None when no Redis answers.

    Waits at most a second.
    """
    client = connect(url, _ANSWER_SECONDS)
    try:
        info: Any = client.info()
        seconds, _ = client.time()
        return Seen(_version(info), list(_faults(info, abs(time.time() - seconds))))
    except redis.BusyLoadingError:
        return Seen("which is still loading its data", [])
    except NoPermissionError as error:
        return Seen("it answers", [_missing_right(error)])
    except (redis.AuthenticationError, redis.ResponseError) as error:  # the first is a ConnectionError
        return Seen("it answers", [f"it refuses: {error}"])
    except redis.RedisError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError):
        return Seen("it answers", ["as no Redis does"])
    finally:
        client.close()


def _missing_right(error: Exception) -> str:
    return (
        f"a right is missing: {error}. Give redis.url a user that has it; or, when this is the private Redis "
        "of another Tally, another port, for one of this Tally's own"
    )


def _version(info: dict[str, Any]) -> str:
    valkey = info.get("valkey_version")  # which calls itself Redis 7.2.4 besides
    version = str(valkey or info["redis_version"])
    if not re.fullmatch(r"[\w.+~-]{1,40}", version, re.ASCII):
        raise ValueError("no version")
    return f"valkey version {version}" if valkey else f"version {version}"


def _faults(info: dict[str, Any], clock_off: float) -> Iterator[str]:
    if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < OLDEST_REDIS:
        yield "6.2 or newer is needed"
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        yield f"maxmemory-policy {policy} may evict the stream: set noeviction"
    if clock_off > FARTHEST_CLOCK_SECONDS:
        yield f"its clock is {clock_off:.0f} s off this machine's: set one of them right"
