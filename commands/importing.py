"""`import`: the purchases of a file become customers, invoices and credits, over HTTP and exactly once.

A row is known again by its own reference, which is unique in its account, or by customer, date and amount.
Without either, a file is known as a whole: a note in the data directory keeps what was answered, for good,
and what it holds is not sent again. Each batch goes with an Idempotency-Key, by which the service knows for
a day what it has done already.
"""

import hashlib
import os
import secrets
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
)
from tenacity.wait import wait_random_exponential

from tally.actors.stopping import StopOrder
from tally.commands import known, rejects
from tally.commands.progress import Bars
from tally.commands.service_client import LIGHT, PATIENCE_SECONDS, Refused, ServiceClient, Unavailable
from tally.config import Settings
from tally.events import Id, rfc3339
from tally.importing import purchase_file
from tally.importing.comparing import Comparison, Identity
from tally.importing.import_report import Report
from tally.importing.purchase_file import PurchaseFile, Reading
from tally.importing.tables import NoTable
from tally.store import ranges
from tally.store.idempotency import KEPT_SECONDS
from tally.store.import_note import ImportNote, Kind, Origin, Sent

BATCH = 1000  # rows a request: it holds the database for some 50 ms, and others get in between
AHEAD = 3  # batches that may be recorded and not shown yet: what others record comes behind them
BAD_ROWS_SHOWN = 20
FEW = 10  # of a hundred rows: where more are bad, leaving them out is no advice

NOBODY = "0"  # in the note: a customer whose rows were left out, as they were bad

_FORMAT = "tally import 1"  # a part of every key: to be changed when other rows are made of a file
_MARGIN_SECONDS = 600  # the service has kept a key for a little longer than we have been waiting
_SPOOLED_BYTES = 64 * 1024**2  # of standard input, which is read twice; more goes to a file
_SHOWN_SECONDS = 10  # how long what was recorded is waited for to be shown


class CannotImport(Exception):
    """The import can't begin, or can't go on; the message says why, and what to do."""


class Interrupted(Exception):
    """The import was told to stop, and can be taken up again."""


class Options(NamedTuple):
    """How the file is read, by what it is known again, and what is done with it.

    Without an `account_id`, each row has its own.
    """

    reading: Reading
    delimiter: str | None
    account_id: Id | None
    identity: Identity
    skip_bad: bool = False
    resend: bool = False
    dry_run: bool = False
    rejects: Path | None = None


def import_file(settings: Settings, source: BinaryIO, options: Options, token: str | None) -> Report:
    """Import what `source` holds; answer what was done. Tells on standard error meanwhile.

    May be repeated at any time, also after any interruption: nothing is added twice.
    Raises CannotImport, Interrupted, StoreError or OSError.
    """
    with (
        Bars() as bars,
        seekable(source) as file,
        closing(ServiceClient("accounts", settings.accounts, token)) as accounts,
        closing(ServiceClient("customers", settings.customers, token)) as customers,
    ):
        account_of = _account_of(accounts, options.account_id)
        found = _read(file, options, bars)
        job = _Job(found, options)
        with (
            _stopped_by_signals() as stopping,
            closing(ImportNote(settings.directory, job.name, make=not options.dry_run)) as note,
        ):
            importer = _Importer(job, note, customers, account_of, _Pace(accounts), stopping, bars)
            return importer.run(file)


@contextmanager
def seekable(source: BinaryIO) -> Iterator[BinaryIO]:
    """The file as one that can be read twice."""
    if source.seekable():
        yield source
        return
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as copy:
        while piece := source.read(1024 * 1024):
            copy.write(piece)
        copy.seek(0)
        yield copy  # type: ignore[misc]


def _read(file: BinaryIO, options: Options, bars: Bars) -> PurchaseFile:
    """Raises CannotImport where there is nothing in it."""
    try:
        found = purchase_file.read(file, options.reading, options.delimiter, bars.add("reading"))
    except NoTable as error:
        raise CannotImport(str(error)) from error
    if not found.rows:
        raise CannotImport("nothing was imported: there is no row in the file, but the names of the columns")
    if found.rows == found.passed_over:
        raise CannotImport(f"nothing was imported: --where takes none of the {found.rows:,} rows")
    return found


def _account_of(accounts: ServiceClient, account_id: Id | None) -> Callable[[str], Id]:
    """What tells which account a row belongs to. Raises CannotImport."""
    try:
        if account_id is None:
            return known.accounts_by_name(accounts)
        accounts.get(f"/accounts/{account_id}/customers?limit=1")
    except Unavailable as error:
        raise CannotImport(f"{error}; is Tally running?") from error
    except Refused as error:
        if error.status == 404:
            raise CannotImport(f"there is no account {account_id}; GET /accounts lists them") from error
        raise CannotImport(str(error)) from error
    return lambda text: account_id


class _Made(msgspec.Struct):
    """The answer to a batch."""

    ids: list[str]


class _Job:
    """What is to be made of a file. `name` is the same for the same content, account and way of reading."""

    def __init__(self, file: PurchaseFile, options: Options) -> None:
        self.file = file
        self.options = options
        self.purchases = file.purchases
        self.buyers = file.purchases.buyers
        reading, account = options.reading, options.account_id
        columns = (reading.customer, reading.date, reading.amount)  # all there was in 0.1.0, whose names hold
        told: list[Any] = [_FORMAT, file.digest, str(account or ""), columns, file.delimiter]
        others = msgspec.structs.replace(reading, customer="customer", date="purchase_date", amount="amount")
        if others != Reading():
            told.append(others)
        if options.identity.overlapping:
            told.append("content")
        self.name = hashlib.sha256(msgspec.json.encode(told)).hexdigest()

    def new_customers(self, places: Sequence[int], accounts: Sequence[Id | None]) -> list[dict[str, Any]]:
        """The batch that makes these of the file's customers, which belong to `accounts`."""
        return [{"name": self.buyers[place].name, "account_id": accounts[place]} for place in places]

    def new_purchases(
        self, kind: Kind, places: Sequence[int], id_of: Callable[[int], int | str]
    ) -> list[dict[str, Any]]:
        """The batch that records these of the file's purchases; `id_of` answers the customers' ids."""
        return [self._new(kind, place, id_of) for place in places]

    def _new(self, kind: Kind, place: int, id_of: Callable[[int], int | str]) -> dict[str, Any]:
        purchase = self.purchases[place]
        day, cents = ("credit_date", "credited_cents"), ("purchase_date", "purchase_price_cents")
        names = day if kind == "credits" else cents
        new = {
            "customer_id": str(id_of(purchase.buyer)),
            names[0]: purchase.date,
            names[1]: abs(purchase.cents),
        }
        return new if purchase.reference is None else {**new, "reference": purchase.reference}

    def requests(self) -> Iterator["_Request"]:
        """The file's purchases as they are sent, always in the same way."""
        for start in range(0, len(self.purchases), BATCH):
            places = range(start, min(start + BATCH, len(self.purchases)))
            credits = [place for place in places if self.purchases.cents(place) < 0]
            invoices = [place for place in places if place not in {*credits}] if credits else [*places]
            if invoices:
                yield _Request("invoices", start, invoices)
            if credits:
                yield _Request("credits", start, credits)


class _Request(NamedTuple):
    """Purchases of a file that are sent together, by their places; the batch begins with number `start`."""

    kind: Kind
    start: int
    places: list[int]


class _Importer:
    """Compares the file with what there is, and sends what is new."""

    def __init__(
        self,
        job: _Job,
        note: ImportNote,
        customers: ServiceClient,
        account_of: Callable[[str], Id],
        pace: "_Pace",
        stopping: StopOrder,
        bars: Bars,
    ) -> None:
        self._job = job
        self._options = job.options
        self._note = note
        self._service = customers
        self._account_of = account_of
        self._pace = pace
        self._stopping = stopping
        self._bars = bars
        # Else what is there tells what is done.
        self._counts = job.options.reading.id is None and not job.options.identity.overlapping
        self._added = {"customers": 0, "invoices": 0, "credits": 0}
        self._may_be_done = False  # the batch at hand, by an attempt that had no clear answer
        was_too_long = stop_after_delay(PATIENCE_SECONDS)
        self._patiently = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=lambda state: stopping.is_set() or was_too_long(state),
            sleep=self._sleep,
            before_sleep=self._tell_first,
            reraise=True,
        )

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def run(self, file: BinaryIO) -> Report:
        job, note, options = self._job, self._note, self._options
        if self._counts:
            self._insist_on_the_same_database()
            if self._is_in_doubt() and not options.resend:
                raise CannotImport(self._doubt())
        try:
            compared = self._patiently.copy()(self._compare)
        except Unavailable as error:
            if self._stopping.is_set():
                raise Interrupted(self._progress()) from error
            raise CannotImport(f"{error}; is Tally running?") from error
        except Refused as error:
            raise CannotImport(str(error)) from error
        bad = dict(sorted({**job.file.bad, **compared.bad}.items()))
        self._tell_bad(file, bad)
        for warning in (*job.file.warnings, *compared.warnings):
            self._bars.say(f"warning: {warning}")
        new = compared.new_buyers(bad)
        good = any(job.purchases.line(place) not in bad for place in range(len(job.purchases)))
        is_refused = not good or bool(bad and not options.skip_bad)
        report = Report(
            job.file, bad, compared.known, compared.updates, len(new), options.dry_run, is_refused
        )
        if options.dry_run:
            return report
        if is_refused:
            raise CannotImport(_nothing_imported(len(bad), job.file.rows, good))
        account = None if options.account_id is None else str(options.account_id)
        note.begin(Origin(job.file.digest, account))
        self._send_customers(compared, new)
        self._send_purchases(compared, bad)
        self._update(compared, bad)
        return report

    def _compare(self) -> Comparison:
        """With what there is in Tally now."""
        job, options, note = self._job, self._options, self._note
        known_ids = [int(id) for id in note.customers] if self._counts else []
        compared = Comparison(
            job.purchases,
            options.reading,
            known.KnownOverHttp(self._service),
            self._account_of,
            options.identity,
            known_ids,
        )
        doubt = None if options.dry_run else note.sending
        if self._counts:
            compared.compare_customers()
            if doubt and doubt.kind == "customers":  # the request still waits for its answer
                note.after_making("customers", compared.there("customers", _places(doubt)), doubt)
            compared.known |= dict.fromkeys(self._done(), 0)
            compared.compare_purchases()
            return compared
        if doubt and doubt.kind == "customers":
            self._settle_customers(doubt, compared)
        compared.compare_customers()
        if doubt and doubt.kind in ("invoices", "credits"):
            self._settle_purchases(doubt, doubt.kind, compared)
        compared.compare_purchases()
        if doubt and doubt.kind and note.sending:  # it couldn't be sent again: what is there now, it made
            note.after_making(doubt.kind, compared.there(doubt.kind, _places(doubt)))
        return compared

    def _settle_customers(self, doubt: Sent, compared: Comparison) -> None:
        if all(compared.accounts[place] is not None for place in _places(doubt)):
            self._settle(doubt, lambda places: self._job.new_customers(places, compared.accounts))

    def _settle_purchases(self, doubt: Sent, kind: Kind, compared: Comparison) -> None:
        ids, purchases = compared.ids, self._job.purchases
        if all(ids[purchases[place].buyer] is not None for place in _places(doubt)):
            self._settle(
                doubt, lambda places: self._job.new_purchases(kind, places, lambda buyer: ids[buyer] or 0)
            )

    def _done(self) -> Iterator[int]:
        """The purchases that the note has."""
        passed = 0
        for request in self._job.requests():
            passed += len(request.places)
            if passed > self._note.invoices:
                return
            yield from request.places

    def _settle(self, doubt: Sent, content: Callable[[Sequence[int]], list[dict[str, Any]]]) -> None:
        """Have a request that had no answer done, or answered as it was; what can't be is compared anew."""
        if doubt.kind is None or time.time() - doubt.at.timestamp() > KEPT_SECONDS - _MARGIN_SECONDS:
            return
        try:
            made: _Made = self._patiently(
                self._post, f"/{doubt.kind}/batch", content(_places(doubt)), doubt.key
            )
        except Refused:
            self._note.after_refusal()  # another has recorded some of it meanwhile, say
        else:
            self._note.after_making(doubt.kind, [int(id) for id in made.ids])

    def _send_customers(self, compared: Comparison, wanted: Container[int]) -> None:
        job, note = self._job, self._note
        first = len(note.customers) if self._counts else 0
        done = self._bars.add("customers", len(job.buyers), first)
        for start in range(first, len(job.buyers), BATCH):
            places = range(start, min(start + BATCH, len(job.buyers)))
            new = [place for place in places if place in wanted]
            made = self._send_new_customers(new, start, compared) if new else []
            for place, id in zip(new, made, strict=True):
                compared.ids[place] = id
            if self._counts:
                note.after_customers([str(compared.ids[place] or NOBODY) for place in places], made)
            elif made:
                note.after_making("customers", made)
            done(places.stop)

    def _send_new_customers(self, new: Sequence[int], start: int, compared: Comparison) -> list[int]:
        return self._send("customers", new, start, self._job.new_customers(new, compared.accounts))

    def _send_purchases(self, compared: Comparison, bad: Container[int]) -> None:
        job, note = self._job, self._note
        done = self._bars.add("invoices", len(job.purchases), note.invoices if self._counts else 0)
        passed = 0
        for kind, start, places in job.requests():
            passed += len(places)
            if self._counts and passed <= note.invoices:
                continue
            new = [
                place for place in places if compared.is_new(place) and job.purchases.line(place) not in bad
            ]
            made = []
            if new:
                batch = job.new_purchases(kind, new, lambda buyer: compared.ids[buyer] or 0)
                made = self._send(kind, new, start, batch)
            if self._counts:
                note.after_purchases(len(places), kind, made)
            elif made:
                note.after_making(kind, made)
            done(passed)

    def _update(self, compared: Comparison, bad: Container[int]) -> None:
        job = self._job
        for place, id in compared.updates.items():
            purchase = job.purchases[place]
            if purchase.line in bad:
                continue
            self._insist_on_going_on()
            change = {"purchase_date": purchase.date, "purchase_price_cents": purchase.cents}
            try:
                self._patiently(self._service.patch, f"/invoices/{id}", change)
            except (Unavailable, Refused) as error:
                raise CannotImport(
                    f"line {purchase.line}: {error}; {self._progress()}; run the same command again to go on"
                ) from error
            self._note.after_update()

    def _send(self, kind: Kind, places: Sequence[int], start: int, batch: list[dict[str, Any]]) -> list[int]:
        self._insist_on_going_on()
        self._pace.keep(self._service.events, self._bars.say)
        key = self._key(kind, start)
        in_doubt = self._is_in_doubt()  # and the user has looked
        self._may_be_done = self._note.sending is not None and not in_doubt
        self._note.before_sending(kind, places, key, again=in_doubt)
        try:
            made: _Made = self._patiently(self._post, f"/{kind}/batch", batch, key)
        except (Unavailable, Refused) as error:
            if not self._may_be_done:
                self._note.after_refusal()
            if self._stopping.is_set():
                raise Interrupted(self._progress()) from error
            raise CannotImport(f"{error}; {self._progress()}; run the same command again to go on") from error
        self._added[kind] += len(made.ids)
        return [int(id) for id in made.ids]

    def _key(self, kind: Kind, start: int) -> str:
        """Where a file is known as a whole, the same each time; else nobody else's."""
        if not self._counts:
            return f"import-{secrets.token_hex(16)}"
        again = f"{self._note.times_undone}-" if self._note.times_undone else ""
        return f"import-{self._job.name}-{again}{kind}-{start}"

    def _insist_on_going_on(self) -> None:
        if self._stopping.is_set():
            raise Interrupted(self._progress())

    def _post(self, path: str, batch: list[dict[str, Any]], key: str) -> _Made:
        try:
            return self._service.post(path, batch, key, _Made)
        except (Unavailable, Refused) as error:
            self._may_be_done = self._may_be_done or error.may_be_done
            raise

    def _tell_first(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self._bars.say(f"{state.outcome.exception()}; trying again for up to {PATIENCE_SECONDS} s")

    def _tell_bad(self, file: BinaryIO, bad: dict[int, str]) -> None:
        """Name the first bad rows, and write all of them where they are wanted. Raises CannotImport."""
        for line, reason in [*bad.items()][:BAD_ROWS_SHOWN]:
            self._bars.say(f"line {line}: {reason}")
        if len(bad) > BAD_ROWS_SHOWN:
            self._bars.say(f"and {len(bad) - BAD_ROWS_SHOWN:,} bad rows more")
        if self._options.rejects:
            _insist_on_another_file(self._options.rejects, file)
            file.seek(0)
            table = purchase_file.open_table(file, self._options.reading, self._options.delimiter)
            rejects.write(self._options.rejects, table, bad, self._options.reading.has_header)

    def _progress(self) -> str:
        job, note = self._job, self._note
        if not self._counts:
            added = ", ".join(f"{count:,} {kind}" for kind, count in self._added.items() if count)
            return f"{added or 'nothing'} was added"
        return (
            f"{len(note.customers):,} of {len(job.buyers):,} customers and "
            f"{note.invoices:,} of {len(job.purchases):,} invoices were added {self._where(to=True)}"
        )

    def _where(self, to: bool = False) -> str:
        account = self._options.account_id
        return f"{'to' if to else 'of'} {'their accounts' if account is None else f'account {account}'}"

    def _insist_on_the_same_database(self) -> None:
        """The note is of no use for a database that lost what it tells of, or that never had it."""
        made = [id for id in self._note.customers if id != NOBODY]
        if not made:
            return
        last = made[-1]
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
        return (
            self._counts
            and sent is not None
            and time.time() - sent.at.timestamp() > KEPT_SECONDS - _MARGIN_SECONDS
        )

    def _doubt(self) -> str:
        job, note = self._job, self._note
        assert note.sending is not None
        done = len(note.customers)
        if done < len(job.buyers):
            first = job.buyers[done]
            what = f"customers {self._where()} from {first.name!r} on"
        else:
            purchase = job.purchases[note.invoices]
            customer = note.customers[purchase.buyer]
            what = f"invoices from one of customer {customer} on {purchase.date} on"
        return (
            f"up to {BATCH:,} {what} were sent at {rfc3339(note.sending.at)} and never answered; by now the "
            "service can't tell any more whether it took them (all of them or none). Look for them, delete "
            "them when they are there, and run this again with --resend"
        )


def _insist_on_another_file(rejects: Path, file: BinaryIO) -> None:
    try:
        same = os.path.samestat(rejects.stat(), os.fstat(file.fileno()))
    except (OSError, ValueError):
        return
    if same:
        raise CannotImport(f"--rejects would overwrite {rejects}, which is the file to be imported")


def _places(sent: Sent) -> list[int]:
    return [place for first, last in ranges.parsed(sent.places) for place in range(first, last + 1)]


def _nothing_imported(bad: int, rows: int, some_are_good: bool) -> str:
    if not some_are_good:
        return f"nothing was imported, as every row is bad ({bad:,})"
    remedy = "mend them"
    if bad * 100 <= rows * FEW or bad == 1:
        remedy += ", or leave them out with --skip-bad; --rejects FILE writes them apart, to be mended and"
        remedy += " imported alone"
    else:
        remedy += ", or see whether the options are those of this file (--dry-run shows what is read)"
    return f"nothing was imported, as there are bad rows ({bad:,}); {remedy}"


class _Pace:
    """Keeps an import from running ahead of what is shown: what others record would come behind all of it."""

    def __init__(self, accounts: ServiceClient) -> None:
        self._accounts = accounts
        self._sent: deque[str] = deque()
        self._has_told = False
        self._patiently = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and not self._has_told),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            stop=stop_after_delay(_SHOWN_SECONDS),
            reraise=True,
        )

    def keep(self, events: str | None, say: Callable[[str], None]) -> None:
        """Before another batch: wait until the one some before it is shown, or for some seconds.

        `events` are those of the last one, None before the first.
        """
        if events is None:
            return
        self._sent.append(events)
        if len(self._sent) <= AHEAD:
            return
        try:
            self._patiently(self._accounts.get_after, LIGHT, self._sent.popleft(), _SHOWN_SECONDS)
        except (Unavailable, Refused) as error:
            if not self._has_told:
                self._has_told = True
                say(f"what is imported is not shown yet ({error}); going on, slowly")


@contextmanager
def _stopped_by_signals() -> Iterator[StopOrder]:
    """The order is given by the first SIGINT or SIGTERM; the second does what it always does."""
    stopping = StopOrder()
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
        stopping.close()
