"""`restore`: copies that `backup` made, in the place of the databases."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from tally.actors import control
from tally.actors.services import SERVICES
from tally.commands.backups import FILES
from tally.recovery.standing import later_names
from tally.store import customers
from tally.store.copying import sync
from tally.store.database import Database
from tally.store.errors import StoreError
from tally.store.outbox import known_of
from tally.store.stream import EventStream, RedisError

_FOLDER = "restore"
_BESIDE = ("", "-wal", "-shm")


class CannotRestore(StoreError):
    """It can't be done, or was not confirmed: nothing was changed. The message says why."""


def insist_on_stopped(data: Path, *files: str) -> None:
    """See that no Tally runs whose services have these files open. Raises CannotRestore."""
    try:
        names = [actor.name for actor in control.ask(data)]
    except control.NotRunning:
        return
    for file in files:
        service = Path(file).stem
        if any(name.startswith(f"{service}-") for name in names):
            raise CannotRestore(
                f"the {service} service runs in {data}; stop it first (`run --only redis` may go on)"
            )


def restore(
    data: Path, directory: Path, stream: EventStream, confirm: Callable[[str], bool]
) -> Iterator[str]:
    """Put the copies in `directory` in the place of the databases in `data`; tell of each once it is there.

    What was there is kept in a folder beside it. `confirm` is asked with what each copy has, and what the
    stream will add, before anything is changed. Raises CannotRestore, StoreError or OSError.
    """
    files = [file for file in FILES if (directory / file).exists()]
    if not files:
        raise CannotRestore(f"{directory}: there is neither {' nor '.join(FILES)}")
    insist_on_stopped(data, *files)
    folder = data / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        told = [_proved(directory / file, folder, stream) for file in files]
        if not confirm("\n".join(told)):
            raise CannotRestore("not confirmed, so nothing was changed; --yes confirms beforehand")
        aside = data / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        for file in files:
            _put_in_place(folder / file, data / file, aside)
            yield f"{data / file}: restored" + (f"; what was there is in {aside}" if aside.exists() else "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _proved(copy: Path, folder: Path, stream: EventStream) -> str:
    """Take a copy in, see that it is sound, and tell what it has."""
    for suffix in _BESIDE[:2]:
        if Path(f"{copy}{suffix}").exists():
            shutil.copyfile(f"{copy}{suffix}", folder / f"{copy.name}{suffix}")
    database = SERVICES[copy.stem].open(folder, migrate=True, make=False)
    try:
        database.insist_on_soundness()
        return f"{copy}: {_content(database)}; {_addition(database, stream)}"
    finally:
        database.close()


def _content(database: Database) -> str:
    if database.service == customers.SERVICE:
        (every, invoices, newest) = database.rows(
            "SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM invoice),"
            " (SELECT max(created_date) FROM (SELECT created_date FROM invoice ORDER BY id DESC LIMIT 1))"
        )[0]
        return f"{every:,} customers, {invoices:,} invoices, the newest of {newest or 'no date'}"
    accounts_, users = database.rows(
        "SELECT (SELECT count(*) FROM account WHERE NOT deleted), (SELECT count(*) FROM user)"
    )[0]
    return f"{accounts_:,} accounts, {users:,} users (who are on no stream: those since are lost)"


def _addition(database: Database, stream: EventStream) -> str:
    """What the stream will add, under all names of the database, the later ones too."""
    known, later, lost = known_of(database), 0, 0
    try:
        published = stream.published_by_source()
        for source in (*known, *later_names(known, stream.heirs())):
            last, newest = known.get(source, 0), published.get(source, 0)
            if newest > last:
                oldest = stream.oldest_sequence(source) or newest + 1
                later += newest - last
                lost += max(0, oldest - last - 1)
    except RedisError as error:
        return f"what the stream will add can't be told: Redis does not answer ({error})"
    if not later:
        return "the stream has nothing later of it"
    added = f"the stream will add its {later - lost:,} later events"
    return f"{added}, and {lost:,} are on it no more: these are lost for good" if lost else added


def _put_in_place(restored: Path, file: Path, aside: Path) -> None:
    """By names alone: whatever interrupts it, the old file or the new one is whole, there or aside."""
    sync(restored)
    for suffix in _BESIDE:
        old = Path(f"{file}{suffix}")
        if old.exists():
            aside.mkdir(mode=0o700, exist_ok=True)
            old.replace(aside / old.name)
    restored.replace(file)
    file.chmod(0o600)
    sync(file.parent)
