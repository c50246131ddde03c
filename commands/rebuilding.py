"""`rebuild accounts`: the read model of accounts.db again, while Tally runs, or while only Redis does."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from tally.actors import redis_access
from tally.actors.lock import DirectoryLock, supervisor_of
from tally.commands.progress import Bars
from tally.config import Settings
from tally.recovery.rebuilding import Rebuilding
from tally.store.stream import EventStream


@contextmanager
def _bar(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """One stage of the work, shown while it lasts."""
    with Bars() as bars:
        yield bars.add(what, total, done)


def rebuild_accounts(settings: Settings, confirm: Callable[[str], bool]) -> str:
    """Build the read model again, and answer what was done; `confirm` is asked before anything is lost.

    Raises CannotRebuild, AlreadyRunning, StoreError or RedisError.
    """
    stream = EventStream.at(redis_access.url(settings), settings.redis.stream)
    stream.client.ping()
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(settings.directory, "rebuild")
    try:
        is_alone = supervisor_of(settings.directory) is None
        with closing(Rebuilding(settings.directory, stream, confirm, _bar, make=is_alone)) as rebuilding:
            return rebuilding.run()
    finally:
        lock.release()
