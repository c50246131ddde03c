"""`import`: the purchases of a file become customers and invoices, over HTTP and exactly once.

Two things see to that. Each batch goes with an Idempotency-Key made of the file's content and the
batch's position, by which the service knows for 24 hours what it has done already. And a note in
the data directory keeps what was answered, for good: what it holds is not sent again.
"""

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, NamedTuple

import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
)
from tenacity.wait import wait_random_exponential

from tally.commands import purchase_file
from tally.commands.progress import Bars
from tally.commands.purchase_file import Columns, NoPurchaseFile, PurchaseFile
from tally.commands.service_client import Refused, ServiceClient, Unavailable
from tally.config import Settings
from tally.events import Id, rfc3339
from tally.store.idempotency import KEPT_SECONDS
from tally.store.import_note import ImportNote

BATCH = 1000  # rows a request: it holds the database for some 50 ms, and others get in between
PATIENCE_SECONDS = 60  # how long the service may be away, such as for a restart

_FORMAT = "tally import 1"  # a part of every key: to be changed when other rows are made of a file
_MARGIN_SECONDS = 600  # the service has kept a key for a little longer than we have been waiting


class CannotImport(Exception):
    """The import can't begin, or can't go on; the message says why, and what to do."""


class Interrupted(Exception):
    """The import was told to stop, and can be taken up again."""


class Options(NamedTuple):
    """How the file is read, whether bad rows are left out, and what is in doubt sent again."""

    columns: Columns
    delimiter: str | None
    skip_bad: bool
    resend: bool


def import_file(
    settings: Settings, source: BinaryIO, account_id: Id, options: Options, token: str | None
) -> str:
    """Import what `source` holds; answer in a sentence what was done. Tells on standard error meanwhile.

    May be repeated at any time, also after any interruption: nothing is added twice.
    Raises CannotImport, Interrupted, StoreError or OSError.
    """
    with Bars() as bars:
        with closing(ServiceClient("accounts", settings.accounts, token)) as accounts:
            _insist_on_account(accounts, account_id)
        try:
            file = purchase_file.read(source, options.columns, options.delimiter, bars.add("reading"))
        except NoPurchaseFile as error:
            raise CannotImport(str(error)) from error
        _tell_bad_rows(file, options.skip_bad, bars.say)
        job = _Job(file, account_id, options.columns)
        with (
            _stopped_by_signals() as stopping,
            closing(ImportNote(settings.directory, job.name)) as note,
            closing(ServiceClient("customers", settings.customers, token)) as customers,
        ):
            return _Importer(job, note, customers, stopping, bars).run(options.resend)


def _insist_on_account(accounts: ServiceClient, account_id: Id) -> None:
    try:
        accounts.get(f"/accounts/{account_id}/customers?limit=1")
    except Unavailable as error:
        raise CannotImport(f"{error}; is Tally running?") from error
    except Refused as error:
        if error.status == 404:
            raise CannotImport(f"there is no account {account_id}; GET /accounts lists them") from error
        raise CannotImport(str(error)) from error


def _tell_bad_rows(file: PurchaseFile, skip: bool, say: Callable[[str], None]) -> None:
    for row in file.bad:
        say(f"line {row.line}: {row.reason}")
    if file.bad_count > len(file.bad):
        say(f"and {file.bad_count - len(file.bad):,} bad rows more")
    if file.bad_count and not skip:
        raise CannotImport(
            f"nothing was imported, as there are bad rows ({file.bad_count:,}); "
            "mend them, or leave them out with --skip-bad"
        )


class _Made(msgspec.Struct):
    """The answer to a batch."""

    ids: list[str]


class _Job:
    """What is to be made of a file. `name` is the same for the same content, account and columns."""

    def __init__(self, file: PurchaseFile, account_id: Id, columns: Columns) -> None:
        self.account_id = account_id
        self.customers = file.purchases.customers
        self.purchases = file.purchases
        told = msgspec.json.encode([_FORMAT, file.digest, str(account_id), columns, file.delimiter])
        self.name = hashlib.sha256(told).hexdigest()

    def new_customers(self, start: int) -> list[dict[str, Any]]:
        """The batch of customers that begins with number `start`."""
        names = self.customers[start : start + BATCH]
        return [{"name": name, "account_id": self.account_id} for name in names]

    def new_invoices(self, start: int, ids: list[str]) -> list[dict[str, Any]]:
        """The batch of invoices that begins with number `start`; `ids` are the customers'."""
        return [
            {
                "customer_id": ids[purchase.customer],
                "purchase_date": purchase.date,
                "purchase_price_cents": purchase.cents,
            }
            for purchase in self.purchases.part(start, start + BATCH)
        ]


class _Importer:
    """Sends what the note doesn't hold yet."""

    def __init__(
        self, job: _Job, note: ImportNote, customers: ServiceClient, stopping: threading.Event, bars: Bars
    ) -> None:
        self._job = job
        self._note = note
        self._service = customers
        self._stopping = stopping
        self._bars = bars
        self._may_be_done = False  # the batch at hand, by an attempt that had no clear answer
        self._patiently = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(PATIENCE_SECONDS) | stop_when_event_set(stopping),
            sleep=sleep_using_event(stopping),
            before_sleep=self._tell_first,
            reraise=True,
        )

    def run(self, resend: bool) -> str:
        job, note = self._job, self._note
        before = len(note.customers), note.invoices
        self._insist_on_the_same_database()
        if self._is_in_doubt() and not resend:
            raise CannotImport(self._doubt())
        done = self._bars.add("customers", len(job.customers), len(note.customers))
        for start in range(len(note.customers), len(job.customers), BATCH):
            note.after_customers(self._send("customers", start, job.new_customers(start)))
            done(len(note.customers))
        done = self._bars.add("invoices", len(job.purchases), note.invoices)
        for start in range(note.invoices, len(job.purchases), BATCH):
            note.after_invoices(len(self._send("invoices", start, job.new_invoices(start, note.customers))))
            done(note.invoices)
        if before == (len(note.customers), note.invoices):
            return f"Nothing was added: {self._progress()} before."
        return f"{self._progress()}{', some of them before' if any(before) else ''}."

    def _send(self, kind: str, start: int, batch: list[dict[str, Any]]) -> list[str]:
        if self._stopping.is_set():
            raise Interrupted(self._progress())
        in_doubt = self._is_in_doubt()  # and the user has looked
        self._may_be_done = self._note.sending is not None and not in_doubt
        self._note.before_sending(again=in_doubt)
        key = f"import-{self._job.name}-{kind}-{start}"
        try:
            made: _Made = self._patiently(self._post, f"/{kind}/batch", batch, key)
        except (Unavailable, Refused) as error:
            if not self._may_be_done:
                self._note.after_refusal()
            if self._stopping.is_set():
                raise Interrupted(self._progress()) from error
            raise CannotImport(f"{error}; {self._progress()}; run the same command again to go on") from error
        return made.ids

    def _post(self, path: str, batch: list[dict[str, Any]], key: str) -> _Made:
        try:
            return self._service.post(path, batch, key, _Made)
        except (Unavailable, Refused) as error:
            self._may_be_done = self._may_be_done or error.may_be_done
            raise

    def _tell_first(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self._bars.say(f"{state.outcome.exception()}; trying again for up to {PATIENCE_SECONDS} s")

    def _progress(self) -> str:
        job, note = self._job, self._note
        return (
            f"{len(note.customers):,} of {len(job.customers):,} customers and "
            f"{note.invoices:,} of {len(job.purchases):,} invoices were added to account {job.account_id}"
        )

    def _insist_on_the_same_database(self) -> None:
        """The note is of no use for a database that lost what it tells of, or that never had it."""
        if not self._note.customers:
            return
        last = self._note.customers[-1]
        try:
            self._service.get(f"/customers/{last}")
        except Unavailable as error:
            raise CannotImport(f"{error}; is Tally running?") from error
        except Refused as error:
            if error.status != 404:
                raise CannotImport(str(error)) from error
            raise CannotImport(
                f"an earlier import of this file created customer {last}, who is no longer there; "
                f"to import the whole file anew, remove {self._note.path}"
            ) from error

    def _is_in_doubt(self) -> bool:
        """Whether a batch had no answer, and was sent so long ago that the service has forgotten its key."""
        sent = self._note.sending
        return sent is not None and time.time() - sent.timestamp() > KEPT_SECONDS - _MARGIN_SECONDS

    def _doubt(self) -> str:
        job, note = self._job, self._note
        assert note.sending is not None
        done = len(note.customers)
        if done < len(job.customers):
            first = job.new_customers(done)[0]
            what = f"customers of account {job.account_id} from {first['name']!r} on"
        else:
            first = job.new_invoices(note.invoices, note.customers)[0]
            what = f"invoices from one of customer {first['customer_id']} on {first['purchase_date']} on"
        return (
            f"up to {BATCH:,} {what} were sent at {rfc3339(note.sending)} and never answered; by now the "
            "service can't tell any more whether it took them (all of them or none). Look for them, delete "
            "them when they are there, and run this again with --resend"
        )


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """The event is set by the first SIGINT or SIGTERM; the second does what it always does."""
    stopping = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: object) -> None:
        stopping.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
