"""`import`: the purchases of a file become customers, invoices and credits, over HTTP and exactly once.

A row is known again by its own reference, which is unique in its account, or by customer, date and amount.
Without either, a file is known as a whole: a permanent note in the data directory keeps the answers, and
batches in the note are not sent again. Each batch has an Idempotency-Key, by which the service knows for a
day what it has done already.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tenacity import RetryCallState, stop_after_delay

from tally.actors.doorbell import StopOrder
from tally.commands import known
from tally.commands.command_line import Failed
from tally.commands.import_job import BATCH, Job, Options
from tally.commands.pace import Pace, stopped_by_signals
from tally.commands.progress import Bars
from tally.commands.service_client import (
    PATIENCE_SECONDS,
    Refused,
    ServiceClient,
    Unavailable,
    insisting,
    is_forgotten,
    patient,
)
from tally.config import Settings
from tally.events import Id, rfc3339
from tally.importing import purchase_file, rejects
from tally.importing.comparing import Comparison
from tally.importing.import_report import Report
from tally.importing.purchase_file import PurchaseFile
from tally.importing.tables import NoTable, Table
from tally.store import ranges
from tally.store.import_note import ImportNote, Kind, Origin, Sent

BAD_ROWS_SHOWN = 20
FEW = 10  # of a hundred rows: if more are bad, leaving them out is no good advice
GO_ON = "run the same command again to go on"

NOBODY = "0"  # in the note: a customer whose rows were left out as bad

_SPOOLED_BYTES = 64 * 1024**2  # of standard input, which is read twice; a larger input goes to a file


def import_file(settings: Settings, source: BinaryIO, options: Options, token: str | None) -> Report:
    """Import the content of `source` and answer a report. Shows progress on standard error.

    May be repeated at any time, even after an interruption: nothing is added twice. Raises Failed, StoreError
    or OSError.
    """
    with (
        Bars() as bars,
        seekable(source) as file,
        closing(ServiceClient("accounts", settings.accounts, token)) as accounts,
        closing(ServiceClient("customers", settings.customers, token)) as customers,
    ):
        account_of = _account_of(accounts, options.account_id)
        found = _read(file, options, bars)
        job = Job(found, options)
        with (
            stopped_by_signals() as stopping,
            closing(ImportNote(settings.directory, job.name, make=not options.dry_run)) as note,
        ):
            importer = _Importer(job, note, customers, account_of, Pace(accounts), stopping, bars)
            return importer.run(file)


@contextmanager
def seekable(source: BinaryIO) -> Iterator[BinaryIO]:
    """The file, from its present position on, as one that can be read twice."""
    if source.seekable() and source.tell() == 0:
        yield source
        return
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as copy:
        shutil.copyfileobj(source, copy)
        copy.seek(0)
        yield copy  # type: ignore[misc]


def _read(file: BinaryIO, options: Options, bars: Bars) -> PurchaseFile:
    """Read the file. Raises Failed if there is nothing in it."""
    try:
        found = purchase_file.read(file, options.reading, bars.add("reading"))
    except NoTable as error:
        raise Failed(str(error)) from error
    if not found.rows:
        raise Failed("nothing was imported: there is no row in the file, but the names of the columns")
    if found.rows == found.passed_over:
        raise Failed(f"nothing was imported: --where takes none of the {found.rows:,} rows")
    return found


def _account_of(accounts: ServiceClient, account_id: Id | None) -> Callable[[str], Id]:
    """Makes the function that finds a row's account. Raises Failed."""
    with insisting("is Tally running?"):
        if account_id is None:
            return known.accounts_by_name(accounts)
        try:
            accounts.get(f"/accounts/{account_id}/customers?limit=1")
        except Refused as error:
            if error.http_status == 404:
                raise Failed(f"there is no account {account_id}; GET /accounts lists them") from error
            raise
    return lambda text: account_id


@dataclass
class _Importer:
    """Compares the file with the recorded rows, and sends the new ones."""

    job: Job
    note: ImportNote
    customers: ServiceClient
    account_of: Callable[[str], Id]
    pace: Pace
    stopping: StopOrder
    bars: Bars

    def __post_init__(self) -> None:
        options = self.options = self.job.options
        # If False, the recorded rows tell what is done, not the note.
        self._counts = options.reading.id is None and not options.identity.overlapping
        account = options.account_id
        self._whose = "their accounts" if account is None else f"account {account}"
        self._added = {"customers": 0, "invoices": 0, "credits": 0}
        self._may_be_done = False  # an attempt without a clear answer may have recorded the present batch
        was_too_long = stop_after_delay(PATIENCE_SECONDS)
        self._patiently = patient(
            stop=lambda state: self.stopping.is_set() or was_too_long(state),
            sleep=self.stopping.wait,
            before_sleep=self._tell_first,
        )

    def run(self, file: BinaryIO) -> Report:
        job, note, options = self.job, self.note, self.options
        if self._counts:
            self._insist_on_the_same_database()
            if self._is_in_doubt() and not options.resend:
                raise Failed(self._doubt())
        try:
            compared = self._patiently.copy()(self._compare)
        except Unavailable as error:
            self._insist_on_going_on()
            raise Failed(f"{error}; is Tally running?") from error
        bad, new = compared.bad, compared.new_buyers()
        self._tell_bad(file, bad)
        for warning in compared.warnings:
            self.bars.say(f"warning: {warning}")
        good = any(each.line not in bad for each in job.purchases)
        is_refused = not good or bool(bad and not options.skip_bad)
        report = Report(compared, options.dry_run, is_refused)
        if options.dry_run:
            return report
        if is_refused:
            raise Failed(_nothing_imported(len(bad), job.file.rows, good))
        account = None if options.account_id is None else str(options.account_id)
        note.begin(Origin(job.file.digest, account))
        self._send_customers(compared, new)
        self._send_purchases(compared)
        self._update(compared)
        return report

    def _compare(self) -> Comparison:
        """Compare the file with the present rows of Tally."""
        job, options, note = self.job, self.options, self.note
        known_ids = [int(id) for id in note.customers] if self._counts else []
        rows = known.KnownOverHttp(self.customers)
        compared = Comparison(job.file, options.reading, rows, self.account_of, options.identity, known_ids)
        doubt = None if options.dry_run else note.sending
        if self._counts:
            compared.compare_customers()
            if doubt and doubt.kind == "customers":  # the request still has no answer
                note.after_making("customers", compared.there("customers", _places(doubt)), doubt)
            compared.known |= dict.fromkeys(self._done(), 0)
            compared.compare_purchases()
            return compared
        if doubt and doubt.kind == "customers":
            self._settle(doubt, compared)
        compared.compare_customers()
        if doubt and doubt.kind in ("invoices", "credits"):
            self._settle(doubt, compared)
        compared.compare_purchases()
        if doubt and doubt.kind and note.sending:  # not sent again: it made the rows there now
            note.after_making(doubt.kind, compared.there(doubt.kind, _places(doubt)))
        return compared

    def _done(self) -> Iterator[int]:
        """The purchases that are done by the note."""
        passed = 0
        for request in self.job.requests():
            passed += len(request.places)
            if passed > self.note.invoices:
                return
            yield from request.places

    def _settle(self, doubt: Sent, compared: Comparison) -> None:
        """Send an unanswered request again, under its key. Where it can't be sent, its rows are compared."""
        if doubt.kind is None or is_forgotten(doubt.at):
            return
        batch = self.job.batch(doubt.kind, _places(doubt), compared)
        if any(None in each.values() for each in batch):
            return
        try:
            made = self._patiently(self._post, doubt.kind, batch, doubt.key)
        except Refused:
            self.note.after_refusal()  # another may have recorded some of it meanwhile
        else:
            self.note.after_making(doubt.kind, made)

    def _send_customers(self, compared: Comparison, wanted: Container[int]) -> None:
        job, note = self.job, self.note
        first = len(note.customers) if self._counts else 0
        done = self.bars.add("customers", len(job.buyers), first)
        for start in range(first, len(job.buyers), BATCH):
            places = range(start, min(start + BATCH, len(job.buyers)))
            new = [place for place in places if place in wanted]
            made = self._send("customers", new, start, compared)
            for place, id in zip(new, made, strict=True):
                compared.ids[place] = id
            if self._counts:
                note.after_customers([str(compared.ids[place] or NOBODY) for place in places], made)
            elif made:
                note.after_making("customers", made)
            done(places.stop)

    def _send_purchases(self, compared: Comparison) -> None:
        job, note = self.job, self.note
        done = self.bars.add("invoices", len(job.purchases), note.invoices if self._counts else 0)
        passed = 0
        for kind, start, places in job.requests():
            passed += len(places)
            if self._counts and passed <= note.invoices:
                continue
            new = [place for place in places if compared.is_new(place)]
            made = self._send(kind, new, start, compared)
            if self._counts:
                note.after_purchases(len(places), kind, made)
            elif made:
                note.after_making(kind, made)
            done(passed)

    def _update(self, compared: Comparison) -> None:
        job = self.job
        for place, id in compared.updates.items():
            purchase = job.purchases[place]
            if purchase.line in compared.bad:
                continue
            self._insist_on_going_on()
            change = {"purchase_date": purchase.date, "purchase_price_cents": purchase.cents}
            try:
                self._patiently(self.customers.patch, f"/invoices/{id}", change)
            except (Unavailable, Refused) as error:
                raise Failed(f"line {purchase.line}: {error}; {self._progress()}; {GO_ON}") from error
            self.note.after_update()

    def _send(self, kind: Kind, places: Sequence[int], start: int, compared: Comparison) -> list[int]:
        """Send a batch for these rows, if there are any; answer their ids."""
        if not places:
            return []
        self._insist_on_going_on()
        self.pace.keep(self.customers.events, self.bars.say)
        key = self._key(kind, start)
        in_doubt = self._is_in_doubt()  # then the user has checked
        self._may_be_done = self.note.sending is not None and not in_doubt
        self.note.before_sending(kind, places, key, again=in_doubt)
        try:
            made: list[int] = self._patiently(self._post, kind, self.job.batch(kind, places, compared), key)
        except (Unavailable, Refused) as error:
            if not self._may_be_done:
                self.note.after_refusal()
            self._insist_on_going_on()
            raise Failed(f"{error}; {self._progress()}; {GO_ON}") from error
        self._added[kind] += len(made)
        return made

    def _key(self, kind: Kind, start: int) -> str:
        """The same key each time if the file is known as a whole; else a random one."""
        if not self._counts:
            return f"import-{secrets.token_hex(16)}"
        again = f"{self.note.times_undone}-" if self.note.times_undone else ""
        return f"import-{self.job.name}-{again}{kind}-{start}"

    def _insist_on_going_on(self) -> None:
        if self.stopping.is_set():
            raise Failed(f"interrupted: {self._progress()}; {GO_ON}")

    def _post(self, kind: Kind, batch: list[dict[str, Any]], key: str) -> list[int]:
        try:
            return [int(id) for id in self.customers.post(f"/{kind}/batch", batch, key)]
        except (Unavailable, Refused) as error:
            self._may_be_done = self._may_be_done or error.may_be_done
            raise

    def _tell_first(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self.bars.say(f"{state.outcome.exception()}; trying again for up to {PATIENCE_SECONDS} s")

    def _tell_bad(self, file: BinaryIO, bad: dict[int, str]) -> None:
        """Name the first bad rows, and write all of them to the --rejects file, if any. Raises Failed."""
        for line, reason in [*bad.items()][:BAD_ROWS_SHOWN]:
            self.bars.say(f"line {line}: {reason}")
        if len(bad) > BAD_ROWS_SHOWN:
            self.bars.say(f"and {len(bad) - BAD_ROWS_SHOWN:,} bad rows more")
        if self.options.rejects:
            _insist_on_another_file(self.options.rejects, file)
            file.seek(0)
            digest = None
            with suppress(NoTable):
                table = Table(file, self.options.reading)
                rejects.write(self.options.rejects, table, bad)
                digest = table.digest
            if digest != self.job.file.digest:
                raise Failed("the file was changed while it was read: run this again")

    def _progress(self) -> str:
        job, note = self.job, self.note
        if not self._counts:
            added = ", ".join(f"{count:,} {kind}" for kind, count in self._added.items() if count)
            return f"{added or 'nothing'} was added"
        return (
            f"{len(note.customers):,} of {len(job.buyers):,} customers and "
            f"{note.invoices:,} of {len(job.purchases):,} invoices were added to {self._whose}"
        )

    def _insist_on_the_same_database(self) -> None:
        """Refuse a database that lacks the noted rows: it lost them, or never had them."""
        made = [id for id in self.note.customers if id != NOBODY]
        if not made:
            return
        last = made[-1]
        try:
            with insisting("is Tally running?"):
                self.customers.get(f"/customers/{last}")
        except Refused as error:
            if error.http_status != 404:
                raise
            raise Failed(
                f"an earlier import of this file created customer {last}, who is no longer there; "
                f"to import the whole file anew, remove {self.note.path}"
            ) from error

    def _is_in_doubt(self) -> bool:
        """Whether a batch had no answer, and is so old that the service has forgotten its key."""
        sent = self.note.sending
        return self._counts and sent is not None and is_forgotten(sent.at)

    def _doubt(self) -> str:
        job, note = self.job, self.note
        assert note.sending is not None
        kind, place = note.sending.kind, next(iter(_places(note.sending)), None)
        if kind is None or place is None:  # release 0.1.0 noted neither, and sent no credits
            done = len(note.customers)
            kind, place = ("customers", done) if done < len(job.buyers) else ("invoices", note.invoices)
        if kind == "customers":
            what = f"customers of {self._whose} from {job.buyers[place].name!r} on"
        else:
            purchase = job.purchases[place]
            customer = note.customers[purchase.buyer]
            what = f"{kind} from one of customer {customer} on {purchase.date} on"
        return (
            f"up to {BATCH:,} {what} were sent at {rfc3339(note.sending.at)} and never answered; by now the "
            "service can't tell any more whether it took them (all of them or none). Look for them, delete "
            "them when they are there, and run this again with --resend"
        )


def _insist_on_another_file(rejects: Path, file: BinaryIO) -> None:
    with suppress(OSError, ValueError):
        if os.path.samestat(rejects.stat(), os.fstat(file.fileno())):
            raise Failed(f"--rejects would overwrite {rejects}, which is the file to be imported")


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
