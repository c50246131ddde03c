"""The customers page's import: `POST /imports` inspects a file, tries it, and records it.

The call is the page's own, and may change with it. Sums are strings, in cents.
"""

import re
from datetime import date
from io import BytesIO
from typing import Any

import falcon
from msgspec import Struct

from tally.events import Id
from tally.http import params
from tally.http.auth import owner
from tally.http.bodies import MOST_IN_BATCH
from tally.http.problems import FieldError, WrongFields
from tally.http.service import BATCH_BODY, Service, read_body
from tally.importing import first_look, purchase_file, recording, rejects
from tally.importing.comparing import Comparison
from tally.importing.first_look import Look
from tally.importing.import_report import Report, Sum
from tally.importing.purchase_file import PurchaseFile
from tally.importing.tables import NoTable, Reading, Table
from tally.store.belonging import insist_on_accounts
from tally.store.cause import Cause
from tally.store.customers import Customers
from tally.store.idempotency import Answer, encode_answer

MOST_ROWS = MOST_IN_BATCH
MOST_BAD = 100  # rows that are listed one by one
MOST_REJECTED = 4 * 1024 * 1024  # characters of the file of bad rows

_SHOWN = 5


class Read(Struct, frozen=True):
    """A row as it was read."""

    line: int
    customer: str
    date: str
    cents: str
    reference: str | None


class Bad(Struct, frozen=True):
    """A fault of a row, or of a number of rows."""

    reason: str
    line: int = 0
    count: int = 0


class Summary(Struct, frozen=True):
    """The result of an import, or of a dry run.

    `known` rows are there already. `reasons` counts all bad rows, and `bad` has the first ones.
    """

    rows: int
    new_customers: int
    known_customers: int
    new_invoices: Sum
    known_invoices: Sum
    new_credits: Sum
    known_credits: Sum
    first: date | None
    last: date | None
    warnings: list[str]
    bad_rows: int
    reasons: list[Bad]
    bad: list[Bad]
    sample: list[Read]


class Tried(Struct, frozen=True):
    """The findings in a file and, once its columns and an account are chosen, what an import would do.

    `rejects` is a CSV file of the bad rows, None if there are none, or if it would be too long.
    """

    look: Look | None
    preview: Summary | None
    rejects: str | None = None


class ImportsResource:
    """Files of purchases for one account."""

    def __init__(self, service: Service[Customers], require_account: bool) -> None:
        self._service = service
        self._require_account = require_account

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Record a file's rows, or with `dry_run` tell what would be recorded.

        The file is read before anything waits for it. It is compared with the recorded rows in the
        transaction that records it.
        """
        asked = _Asked(req)
        self._service.insist_on_permission()
        body = read_body(req, BATCH_BODY)
        try:
            if asked.dry_run:
                resp.data = encode_answer(self._tried(asked, body, owner(req)))
                return
            file = _read(asked, body)
        except NoTable as error:
            raise _refusal("file", plainly(str(error))) from error
        sent = req.query_string.encode() + b"\n" + body  # an Idempotency-Key covers both
        self._service.create(
            req, resp, sent, lambda store, cause: self._record(store, file, asked, owner(req), cause)
        )

    def _tried(self, asked: "_Asked", body: bytes, owner: str | None) -> Tried:
        wanted = {*asked.reading.columns()}
        header = Table(BytesIO(body), asked.reading).header
        if asked.account_id is None or "" in wanted or wanted - {*header}:
            return Tried(first_look.look(body, asked.reading), None)
        file = _read(asked, body)
        with self._service.read() as store:
            report = Report(self._compared(store, file, asked, owner))
        bad = {line: plainly(reason) for line, reason in report.bad.items()}
        rejected = rejects.text(Table(BytesIO(body), asked.reading), bad, MOST_REJECTED) if bad else None
        return Tried(None, _summary(report), rejected)

    def _record(
        self, store: Customers, file: PurchaseFile, asked: "_Asked", owner: str | None, cause: Cause
    ) -> Answer:
        compared = self._compared(store, file, asked, owner)
        if compared.bad and not asked.skip_bad:
            raise _refusal("skip_bad", f"{len(compared.bad):,} rows are bad: leave them out, or mend them.")
        if len(compared.bad) == file.rows:
            raise _refusal("file", "Every row is bad.")
        report = Report(compared)
        recording.record(store, compared, self._require_account, owner, cause)
        return Answer(None, encode_answer(_summary(report)))

    def _compared(
        self, store: Customers, file: PurchaseFile, asked: "_Asked", owner: str | None
    ) -> Comparison:
        reading, account_id = asked.whole()
        insist_on_accounts(store.database, [account_id], owner, self._require_account)
        return recording.compare(store, file, reading, account_id)


class _Asked:
    """How to read a file, and what to do with it. A column that isn't chosen is "", which no file has."""

    def __init__(self, req: falcon.Request) -> None:
        asked: dict[str, Any] = {each.name: each.of(req) for each in params.IMPORTED}
        self.account_id: Id | None = asked.pop("account_id")
        self.skip_bad: bool = asked.pop("skip_bad")
        self.dry_run: bool = asked.pop("dry_run")
        self.reading = Reading(**asked | ({} if asked["id"] else {"id": None, "lines": None}))

    def whole(self) -> tuple[Reading, Id]:
        """How to read rows, and the account of all of them. Raises WrongFields for all missing fields."""
        missing = [name for name in ("customer", "date", "amount") if not getattr(self.reading, name)]
        missing += ["account_id"] if self.account_id is None else []
        if missing:
            raise WrongFields([FieldError(name, "Required") for name in missing])
        return self.reading, Id(self.account_id or 0)


def _read(asked: _Asked, body: bytes) -> PurchaseFile:
    """Raises NoTable, and WrongFields."""
    reading, _ = asked.whole()
    file = purchase_file.read(BytesIO(body), reading, _insist_on_few)
    if not file.rows:
        raise _refusal("file", "There is no row in the file, but the names of the columns.")
    return file


def _insist_on_few(rows: int) -> None:
    if rows > MOST_ROWS:
        why = f"More than {MOST_ROWS:,} rows are too many here: the command `tally import` takes any number."
        raise _refusal("file", why)


def _refusal(field: str, why: str) -> WrongFields:
    return WrongFields([FieldError(field, why)], why)


def _summary(report: Report) -> Summary:
    return Summary(
        report.file.rows,
        report.new_customers,
        report.known_customers,
        report.counted("invoices", "new"),
        report.counted("invoices", "known"),
        report.counted("credits", "new"),
        report.counted("credits", "known"),
        report.first,
        report.last,
        [plainly(warning) for warning in report.warnings],
        len(report.bad),
        [Bad(plainly(reason), count=count) for reason, count in report.reasons().most_common()],
        [Bad(plainly(reason), line) for line, reason in [*report.bad.items()][:MOST_BAD]],
        [
            Read(each.line, name, str(each.date), str(each.cents), each.reference)
            for each, name in report.sample(_SHOWN)
        ],
    )


def plainly(told: str) -> str:
    """A message without the command's options, which the page doesn't have."""
    for pattern, instead in _OF_THE_COMMAND.items():
        told = re.sub(pattern, instead, told)
    return told


_OF_THE_COMMAND = {
    r" \(--[^)]*\)": "",
    r"; --(lines|update) [^,]*": "",
    r"take --amount ('.*') --lines first": r"choose \1 as the amount, and count it once",
    r": give --encoding (\S+)": r": choose the encoding \1",
    ": give no --encoding": ": choose the encoding that it tells",
}
