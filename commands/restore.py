"""`restore`: puts copies that `backup` made in the place of the databases."""

import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from tally.commands.command_line import Failed
from tally.commands.databases import DATABASES, FILES, kept_stopped
from tally.commands.shared import Command, confirmed, stream_of
from tally.config import Settings
from tally.recovery.first_start import emptied
from tally.recovery.standing import later_names
from tally.store import customers
from tally.store.copying import give_to_owner, sync, told_of
from tally.store.database import RESTORING, Database
from tally.store.outbox import known_of
from tally.store.stream import EventStream, RedisError

_BESIDE = ("", "-wal", "-shm")


@click.command(cls=Command, example="restore /var/backups/tally/monday")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Don't ask.")
def restore(settings: Settings, directory: Path, yes: bool) -> None:
    """Replace customers.db and accounts.db by the copies in DIRECTORY, while Tally is stopped.

    Tells what each copy has and what the stream will add, and asks. The replaced files are kept in a folder
    beside them. At its next start Tally takes the later events from the stream; how many those are can be
    told while `run --only redis` runs, or with a Redis of your own.
    """
    with stream_of(settings) as stream:
        told = put_back(settings.directory, directory, stream, lambda told: confirmed(told, yes))
    click.echo("\n".join([*told, "`run` takes back what the stream has"]))


def put_back(data: Path, directory: Path, stream: EventStream, confirm: Callable[[str], bool]) -> list[str]:
    """Replace the databases in `data` by the copies in `directory`; answer what was done with each.

    The old files are kept in a folder beside them. Before anything is changed, `confirm` is asked with the
    content of each copy, and what the stream will add. Raises Failed, StoreError or OSError.
    """
    files = [file for file in FILES if (directory / file).exists()]
    if not files:
        raise Failed(f"{directory}: there is neither {' nor '.join(FILES)}")
    with kept_stopped(data, *files), emptied(data, RESTORING) as folder:
        told = [_proved(directory / file, folder, stream) for file in files]
        if not confirm("\n".join(told)):
            raise Failed("not confirmed, so nothing was changed; --yes confirms beforehand")
        aside = data / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        return [_put_in_place(folder / file, data / file, aside) for file in files]


def _proved(copy: Path, folder: Path, stream: EventStream) -> str:
    """Copy it into `folder`, check it, and tell what it has."""
    for suffix in _BESIDE[:2]:
        if Path(f"{copy}{suffix}").exists():
            shutil.copyfile(f"{copy}{suffix}", folder / f"{copy.name}{suffix}")
    remedy = "take another backup"
    if copy.name == customers.FILE:
        remedy += ", or make a lost customers.db again with `recover customers`"
    with (
        told_of(copy, folder / copy.name, remedy),
        closing(DATABASES[copy.stem](folder, migrate=True, make=False)) as database,
    ):
        database.insist_on_soundness()
        return f"{copy}: {_content(database)}; {_addition(database, stream)}"


def _content(database: Database) -> str:
    if database.service == customers.SERVICE:
        (every, invoices, newest) = database.rows(
            "SELECT (SELECT count(*) FROM customer), count(*), max(created_date) FROM invoice"
        )[0]
        return f"{every:,} customers, {invoices:,} invoices, the newest of {newest or 'no date'}"
    accounts_, users = database.rows(
        "SELECT (SELECT count(*) FROM account WHERE NOT deleted), (SELECT count(*) FROM user)"
    )[0]
    return f"{accounts_:,} accounts, {users:,} users (who are on no stream: those since are lost)"


def _addition(database: Database, stream: EventStream) -> str:
    """Tell what the stream will add: later events of the database, under all its names."""
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


def _put_in_place(restored: Path, file: Path, aside: Path) -> str:
    """Only rename files: whatever interrupts it, the old and the new file are whole, in place or aside.

    Between two names there is no database, and none is made while RESTORING is there. Answers what was done.
    """
    sync(restored)
    for suffix in _BESIDE:
        old = Path(f"{file}{suffix}")
        if old.exists():
            aside.mkdir(mode=0o700, exist_ok=True)
            old.replace(aside / old.name)
    restored.replace(file)
    file.chmod(0o600)
    give_to_owner(file)
    sync(file.parent)
    return f"{file}: restored" + (f"; what was there is in {aside}" if aside.exists() else "")
