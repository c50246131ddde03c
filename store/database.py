"""One SQLite file of a service, and this process's connection to it.

Every database carries an identity, made when the file is made: eight hex digits. Together with
the service's name it is the source of the service's events and the name of its consumer group.
"""

import os
import random
import secrets
import time
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from tally.store import errors
from tally.store.copying import give_to_owner

APPLICATION_ID = 0x54616C79  # "Taly": marks our databases among SQLite files
WRITER_CACHE_KIB = 32 * 1024  # fits the pages that events of a million customers read and change
ROWS_AT_ONCE = 50  # in one INSERT: each statement has a fixed cost, most of it for AUTOINCREMENT
LOG_PAGES = 4000  # 16 MiB: a page that changes often is then copied from the log less often
LARGE_LOG_BYTES = 2 * 4096 * LOG_PAGES  # twice its size under load: a reader has held back the checkpoint
STOOD_STILL_SECONDS = 0.5  # so long between two tries for the lock means that this process did not run
LONGEST_TRY_SECONDS = 0.001  # between two tries for the lock
GIVEN_WAY = 25  # after a long transaction, others may go first for one part in so many of its time
LONGEST_WAY_SECONDS = 0.1  # so long at most: the process may have stood still in its transaction (Ctrl-Z)
STEPS_BETWEEN_BEATS = 200_000  # of the machine that runs SQL: some milliseconds
BUSY_SECONDS = 5.0  # how long a writer waits for the file's other writers, by default

Bindings = Sequence[Any] | Mapping[str, Any]
"""The values of a statement's `?`, or of its `:names`."""

Migrations = Sequence[str]
"""SQL that leads from one version of a schema to the next; the first from 1 to 2.

A schema's version is the number of its migrations plus one. Released migrations never change.
"""

NEVER_RELEASED: Migrations = ("", "", "")  # between 0.1.0's schema, which is 1, and the next release's, 5

NODE = "node"  # in meta; without it, 0

RESTORING = "restore.partial"
"""The folder where `restore` makes databases, in the data directory. It stays if that is killed."""

_GONE = (
    "the database that was here is gone; stop Tally, and put a backup back (`restore DIR`), or make "
    "customers.db again (`recover customers`): docs/operations/backup.md"
)
_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;"


def insist_on_whole_restore(file: Path) -> None:
    """Raise UnusableDatabase if there is no such database since a `restore` was killed: it was put aside."""
    folder = file.parent / RESTORING
    if folder.exists() and not file.exists():
        raise errors.UnusableDatabase(
            f"there is no {file}, as a `restore` was interrupted: run that again, or remove {folder}"
        )


Place = tuple[int, int]
"""The file at a path: its device and its number there."""


def place_of(path: Path) -> Place | None:
    """The file that is there, None without one."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Database:
    """A connection to the database at `path`, which is made if missing, unless `make` is false.

    With `place`, it must be that very file: another file there is refused, then and later.

    A new file gets `schema`; `migrations` lead to the same from version 1 on. A file of an earlier version is
    upgraded only with `migrate`: nobody else may be using it.

    Not for two threads at once, and never carried across a fork. A committed transaction is durable: WAL with
    `synchronous=FULL`. It waits for the write lock for `patience` seconds. Raises StoreUnavailable when the
    file can't be used now, UnusableDatabase when it never can, and OutdatedDatabase when it must be upgraded
    first.
    """

    def __init__(
        self,
        path: Path,
        service: str,
        schema: str,
        migrations: Migrations = (),
        migrate: bool = False,
        make: bool = True,
        place: Place | None = None,
    ) -> None:
        self.path = path
        self.directory = path.parent
        """Where the other service's database is, and files about this for people; `path` may be a draft's."""
        self._make = make
        self._place = place
        self.service = service
        self.patience = BUSY_SECONDS
        self.is_newest: Callable[[], bool] = lambda: True
        """Whether it is known to hold the newest events of its source; see incarnations."""
        self.refusal: Callable[[], errors.StoreUnavailable | None] = lambda: None
        """Why nothing may be published from here, such as another in its place; for any thread."""
        self.transactions = 0
        """The number of write transactions begun here."""
        self._at_commit: list[Callable[[], object]] = []
        self._gives_way_until = 0.0
        self._beat: Callable[[], None] | None = None
        self.is_draft = False
        """Whether it has no name yet, and is made again if this process ends; see `be_draft`."""
        self._cache = "PRAGMA cache_size"  # of a connection that is opened again, too
        self.run = ""
        """The run of Tally that this process belongs to; see incarnations."""
        self._schema = schema
        self._migrations = migrations
        self._newest = 1 + len(migrations)
        self._open(migrate)
        self.identity = str(self.meta("identity"))
        self.node = int(self.meta(NODE) or 0)
        """The number of the node that it belongs to: it gives the ids of that node's range."""

    @property
    def source(self) -> str:
        """`<service>@<identity>`: the source of this database's events, and its consumer group."""
        return f"{self.service}@{self.identity}"

    def execute(self, sql: str, bindings: Bindings = ()) -> apsw.Cursor:
        """Run one statement. May wait for the write lock."""
        self.beat()
        try:
            return self._connection.execute(sql, bindings)
        except errors.DAMAGE as error:
            raise errors.DamagedDatabase(self.path, error) from error

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row, inside the transaction that is open."""
        self.beat()
        self._connection.executemany(sql, rows)

    def insert(self, into: str, rows: Sequence[Sequence[Any]], on_conflict: str = "") -> None:
        """Insert rows in order, inside the transaction that is open; `into` names the table and columns.

        `on_conflict` is the clause for rows whose key is there already. If this raises, some rows may be
        inserted: the transaction must not be committed then.
        """
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        if whole:
            # FAIL, because with ABORT SQLite would copy each page first, to undo only that statement.
            flat = list(chain.from_iterable(rows[:whole]))
            step = len(flat) // (whole // ROWS_AT_ONCE)
            many = ", ".join([_places(rows[0])] * ROWS_AT_ONCE)
            sql = f"INSERT OR FAIL INTO {into} VALUES {many} {on_conflict}"
            self.executemany(sql, [flat[start : start + step] for start in range(0, len(flat), step)])
        if rest := rows[whole:]:
            self.executemany(f"INSERT INTO {into} VALUES {_places(rest[0])} {on_conflict}", rest)

    def rows(self, sql: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """All rows of a query. Outside a transaction the query is its own snapshot."""
        self.beat()
        try:
            return list(self._connection.execute(sql, bindings))
        except errors.DAMAGE as error:
            raise errors.DamagedDatabase(self.path, error) from error

    def value(self, sql: str, bindings: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        for first, *_ in self.execute(sql, bindings):
            return first
        return None

    def last_row_id(self) -> int:
        """The rowid of the row that was inserted last."""
        return self._connection.last_insert_rowid()

    def changes(self) -> int:
        """How many rows the last INSERT, UPDATE or DELETE changed."""
        return self._connection.changes()

    def total_changes(self) -> int:
        """How many rows were changed since the database was opened here, undone changes included."""
        return self._connection.total_changes()

    def insist_on_soundness(self) -> None:
        """Read the whole file and check it. Raises UnusableDatabase with the first fault."""
        with errors.translated(str(self.path)):
            found = self.value("PRAGMA integrity_check(1)")
        if found != "ok":
            raise errors.DamagedDatabase(self.path, " ".join(str(found).split()))

    def log_bytes(self) -> int | None:
        """The size of the write-ahead log, None if there is none."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return None

    def shrink_log(self) -> None:
        """Empty a log that has grown large, unless somebody still reads it, or is writing.

        A log grows while a reader holds back the checkpoint, and would keep its size for good. The first
        checkpoint copies most of it while others write; writers wait only for the second.
        """
        if (self.log_bytes() or 0) < LARGE_LOG_BYTES:
            return
        patience, self.patience = self.patience, 0.0
        try:
            with errors.translated(str(self.path)):
                for mode in ("PASSIVE", "TRUNCATE"):
                    self.rows(f"PRAGMA wal_checkpoint({mode})")
        finally:
            self.patience = patience

    def meta(self, key: str) -> Any:
        """The value kept under `key`, or None."""
        return self.value("SELECT value FROM meta WHERE key = ?", (key,))

    def set_meta(self, key: str, value: object) -> None:
        """Keep `value` under `key`, inside the transaction that is open."""
        sql = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        self.execute(sql, (key, value))

    def assign(self, node: int) -> None:
        """Make it belong to that node, in the open transaction; see nodes.assign."""
        self.set_meta(NODE, node)
        self.node = node

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything done inside is committed together, durably, or not at all.

        Takes the write lock at once, so that everything read inside still holds at the commit. A deferred
        transaction would fail with SQLITE_BUSY_SNAPSHOT at its first write.

        After a long one it begins a moment later, so that others who wait for the lock find it free.
        """
        self.insist_on_place()
        if (moment := self._gives_way_until - time.monotonic()) > LONGEST_TRY_SECONDS:
            time.sleep(moment)
        self.transactions += 1
        self._at_commit.clear()
        began = None
        try:
            with errors.translated(str(self.path)), self._bracket("BEGIN IMMEDIATE"):
                began = time.monotonic()
                yield
        except errors.StoreUnavailable as error:
            if isinstance(error.__cause__, apsw.ReadOnlyError):
                self._open()  # a connection opened to a read-only file stays read-only
            raise
        finally:
            if began:
                ended = time.monotonic()
                self._gives_way_until = ended + min((ended - began) / GIVEN_WAY, LONGEST_WAY_SECONDS)
        for told in self._at_commit:
            told()

    def at_commit(self, told: Callable[[], object]) -> None:
        """Call `told`, which must not raise, once the open transaction is committed; not if it is undone."""
        self._at_commit.append(told)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is from one moment. Keep it short: it holds back the checkpoint."""
        self.insist_on_place()
        with errors.translated(str(self.path)), self._bracket("BEGIN"):
            yield

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """Transactions inside may be lost in a power failure. Use it for data that is also elsewhere.

        They never harm durable ones: the next durable commit syncs them too.
        """
        self.execute(f"PRAGMA synchronous = {'OFF' if self.is_draft else 'NORMAL'}")
        try:
            yield
        finally:
            self.execute("PRAGMA synchronous = FULL")

    def be_draft(self) -> None:
        """Let relaxed transactions wait for no disk. Only for a file that has no name before it is synced."""
        self.is_draft = True

    def write_nothing(self) -> None:
        """Write to the disk in the open transaction, and change nothing: to see whether it can be done."""
        self.set_meta("tried", 0)
        self.execute("DELETE FROM meta WHERE key = 'tried'")

    def expect_writes(self) -> None:
        """Keep more pages in memory from now on: for writers that change the same pages repeatedly."""
        self._cache = f"PRAGMA cache_size = -{WRITER_CACHE_KIB}"
        self.execute(self._cache)

    def beat_by(self, beat: Callable[[], None]) -> None:
        """Call `beat` with each statement from now on, and again and again while one waits or takes long."""
        self._beat = beat
        self._connection.set_progress_handler(self.beat, STEPS_BETWEEN_BEATS)

    def beat(self) -> bool:
        """Show that a statement waits, or is at work. Answers False: True would have SQLite end it."""
        if self._beat:
            self._beat()
        return False

    def close(self) -> None:
        """May be repeated."""
        self._connection.close()

    def _open(self, migrate: bool = False) -> None:
        if self._place or not self._make:
            self.insist_on_place()  # before SQLite reads another file's log with it
        insist_on_whole_restore(self.path)
        is_new = not self.path.exists()
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if self._make else 0)
        with errors.translated(str(self.path)):
            self._connection = apsw.Connection(str(self.path), flags=flags, statementcachesize=200)
            if is_new:
                give_to_owner(self.path)  # SQLite gives its logs to the owner of the database
            self._connection.set_busy_handler(_FairWait(self))
            if self._beat:
                self.beat_by(self._beat)
            # Else this SQLite, built with STAT4, plans a query again for each bound value.
            self._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            self._connection.create_scalar_function("composed", composed, 1, deterministic=True)
            self._prepare(migrate)
            self.execute(self._cache)
        self._place = self._place or place_of(self.path)
        self.insist_on_place()

    def insist_on_place(self) -> None:
        """Check that the file is still at its path: writes to a removed file are lost.

        Raises StoreUnavailable. Safe for any thread.
        """
        place = place_of(self.path)
        if place is None:
            raise errors.StoreUnavailable(f"{self.path}: {_GONE}")
        if self._place not in (None, place):
            raise errors.StoreUnavailable(
                f"{self.path}: was replaced while Tally ran, which goes on with neither file; stop Tally, "
                "and start it again with the one that counts, with no -wal or -shm beside it"
            )

    @contextmanager
    def _bracket(self, begin: str) -> Iterator[None]:
        self.execute(begin)
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled the whole transaction back already.
            if not self._connection.get_autocommit():
                self.execute("ROLLBACK")
            raise

    def _prepare(self, migrate: bool) -> None:
        version = self._version()  # read before anything is written: it may be another program's file
        if version == 0 and not self._make:
            raise errors.DamagedDatabase(self.path, "is an empty file", _GONE)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")
        self.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if version == 0:
            self._create()
        if self.meta("service") != self.service:
            raise errors.UnusableDatabase(
                f"{self.path}: is the database of the service {self.meta('service')}, not {self.service}"
            )
        version = self._version()
        if version > self._newest:
            raise errors.UnusableDatabase(
                f"{self.path}: written by a newer release (schema {version}, this one knows "
                f"{self._newest}); install that release again"
            )
        if version < self._newest:
            if not migrate:
                raise errors.OutdatedDatabase(
                    f"{self.path}: written by an earlier release (schema {version}, this one's is "
                    f"{self._newest}); `run` brings it up to date"
                )
            self._migrate()

    def _version(self) -> int:
        version = int(self.value("PRAGMA user_version"))
        ours = self.value("PRAGMA application_id") == APPLICATION_ID
        empty = self.value("SELECT count(*) FROM sqlite_schema") == 0
        if not ours and not (empty and version == 0):
            remedy = "move it away, or set data.directory elsewhere"
            raise errors.DamagedDatabase(self.path, "is not a database of Tally's", remedy)
        return version

    def _create(self) -> None:
        with self._bracket("BEGIN IMMEDIATE"):
            if self._version() == 0:  # no other process was faster
                self.execute(_META + self._schema)
                self.set_meta("service", self.service)
                self.set_meta("identity", secrets.token_hex(4))
                self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self.execute(f"PRAGMA user_version = {self._newest}")

    def _migrate(self) -> None:
        """Take all missing steps in one transaction, so that a file is always of one release."""
        with self._bracket("BEGIN IMMEDIATE"):
            found = self._version()  # already the newest if another process was faster
            for version, step in enumerate(self._migrations[found - 1 :], start=found + 1):
                self._step_to(version, step)
            self.execute(f"PRAGMA user_version = {self._newest}")

    def _step_to(self, version: int, step: str) -> None:
        try:
            self.execute(step)
            if orphans := len(self.rows("PRAGMA foreign_key_check")):
                raise apsw.ConstraintError(f"{orphans} rows refer to what is not there")
        except (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError) as error:
            raise errors.UnusableDatabase(
                f"{self.path}: can't be brought from schema {version - 1} to {version}: {error}. "
                "Nothing was changed in it; install the earlier release again, and report this"
            ) from error


composed: Callable[..., str] = partial(unicodedata.normalize, "NFC")
"""The text with its letters and their marks put together (Unicode's NFC). Also a function in SQL."""


def numbers(values: Iterable[int]) -> object:
    """A binding for `carray(?)` in a query: a table of these numbers, each as `value`.

    Lookups are fastest in ascending order.
    """
    held = array("q", values)
    return apsw.carray(held) if held else None  # NULL makes an empty table


def listed(values: Iterable[object]) -> str:
    """A binding for `json_each(?)` in a query: a table of these texts, numbers or lists, each as `value`."""
    return msgspec.json.encode([*values]).decode()


def _places(row: Sequence[Any]) -> str:
    return f"({', '.join('?' * len(row))})"


class OpenDatabase(NamedTuple):
    """Opens a service's database, the `file` in a directory; see Database."""

    file: str
    service: str
    schema: str
    migrations: Migrations

    def __call__(
        self, directory: Path, migrate: bool = False, make: bool = True, place: Place | None = None
    ) -> Database:
        """Open the database in `directory`."""
        path = directory / self.file
        return Database(path, self.service, self.schema, self.migrations, migrate, make, place)


class _FairWait:
    """Waits for the write lock in short jittered sleeps, as long as the database's patience lasts.

    SQLite's own busy_timeout backs off to 100 ms, and so starves one of two busy writers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._deadline = self._tried_at = 0.0

    def __call__(self, attempts: int) -> bool:
        now = time.monotonic()
        if attempts == 0:
            self._deadline = now + self._database.patience
        elif (stood_still := now - self._tried_at) > STOOD_STILL_SECONDS:
            self._deadline += stood_still  # the holder of the lock may have stood still too
        self._tried_at = now
        if now >= self._deadline:
            return False
        self._database.beat()
        time.sleep(random.uniform(0.0003, LONGEST_TRY_SECONDS))
        return True
