"""`import --undo`: deletes what the imports of a file have recorded, except what was changed since."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import BinaryIO

from tally.commands.command_line import Failed
from tally.commands.importing import GO_ON
from tally.commands.progress import Bars
from tally.commands.service_client import Refused, ServiceClient, Unavailable, insisting
from tally.config import Settings
from tally.events import Id
from tally.store import ranges
from tally.store.import_note import ImportNote, Kind, notes_of

AT_ONCE = 8  # deletions on their way: the service commits those that come together at once

_CHUNK = 100  # rows whose deletions are handed out before the outcome of the first is looked at
_ORDER: tuple[Kind, ...] = ("credits", "invoices", "customers")  # rows that belong to others go first
_SHOWN = 20
_TakeBack = Callable[[Kind, Iterator[int]], Iterator[tuple[int, str]]]
_STAYS = {412: "was changed since", 409: "has invoices or credits that this import did not record"}
_HIDDEN = "hidden"  # not there for the token's user, and never was: perhaps another's


def undo_file(settings: Settings, source: BinaryIO, account_id: Id | None, token: str | None) -> str:
    """Delete what all imports of the file have recorded, or those into one account.

    Answers what was done, and tells on standard error what stays. May be repeated, even after an
    interruption. An import of which the token's user may not see all is not forgotten: run again, it would
    add those rows a second time. Raises Failed, StoreError or OSError.
    """
    names = notes_of(settings.directory, hashlib.file_digest(source, "sha256").hexdigest())  # type: ignore[arg-type]
    counts: Counter[str] = Counter()
    with Bars() as bars, _several(lambda: ServiceClient("customers", settings.customers, token)) as take_back:
        for name in names:
            with closing(ImportNote(settings.directory, name)) as note:
                is_wanted = account_id is None or (note.origin and note.origin.account_id == str(account_id))
                if is_wanted and (note.made or note.sending):
                    if token and note.origin and note.origin.account_id:
                        _insist_on_seeing(settings, note.origin.account_id, token)
                    counts += _undo(note, take_back, bars)
    if not counts:
        of = "" if account_id is None else f" into account {account_id}"
        raise Failed(
            f"nothing is noted in {settings.directory} of an import of this file{of} that could be taken "
            "back (release 0.1.0 did not note what it recorded)"
        )
    return _told(counts)


def _insist_on_seeing(settings: Settings, account_id: str, token: str) -> None:
    """Raise Failed unless the token's user may see the account, which may be deleted by now."""
    with closing(ServiceClient("accounts", settings.accounts, token)) as accounts, insisting(GO_ON):
        try:
            accounts.get(f"/accounts/{account_id}/history?limit=1")
        except Refused as error:
            if error.http_status != 404:
                raise
            raise Failed(
                f"for the user of this token there is no account {account_id}, into which the file was"
                " imported; nothing was taken back"
            ) from error


@contextmanager
def _several(connect: Callable[[], ServiceClient]) -> Iterator[_TakeBack]:
    """Takes rows of one kind back, several at once; gives the outcomes in the rows' order."""
    spare: SimpleQueue[ServiceClient] = SimpleQueue()
    with ExitStack() as clients, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(AT_ONCE):
            spare.put(clients.enter_context(closing(connect())))

        def one(kind: Kind, id: int) -> str:
            customers = spare.get()
            try:
                return _take_back(customers, kind, id)
            finally:
                spare.put(customers)

        def several(kind: Kind, ids: Iterator[int]) -> Iterator[tuple[int, str]]:
            while chunk := [*islice(ids, _CHUNK)]:
                yield from zip(chunk, pool.map(partial(one, kind), chunk), strict=True)

        yield several


def _undo(note: ImportNote, take_back: _TakeBack, bars: Bars) -> Counter[str]:
    counts: Counter[str] = Counter()
    if note.sending:
        raise Failed(
            "this import was interrupted while a batch was on its way: run it again to its end, then undo it"
        )
    for kind in _ORDER:
        ids = note.made.get(kind, [])
        done = bars.add(kind, ranges.count(ids))
        newest_first = (id for first, last in reversed(ids) for id in range(last, first - 1, -1))
        for count, (id, outcome) in enumerate(take_back(kind, newest_first), 1):
            if outcome in _STAYS.values():
                if counts["stays"] < _SHOWN:
                    bars.say(f"the {kind[:-1]} {id} stays: it {outcome}")
                outcome = "stays"
            counts[outcome] += 1
            done(count)
    if hidden := counts[_HIDDEN]:
        raise Failed(
            f"{_told(counts)} {hidden:,} are not there for the user of this token, and may be in another's"
            " account: run it again with that one's token, or an admin's"
        )
    if note.updated:
        bars.say(f"{note.updated:,} invoices that it changed (--update) keep what they are now")
    note.undo()
    return counts


def _take_back(customers: ServiceClient, kind: Kind, id: int) -> str:
    """Delete a row if it never changed. Answers its kind, `gone`, `hidden`, or why it stays."""
    path = f"/customers/{id}?cascade=false" if kind == "customers" else f"/{kind}/{id}"
    try:
        customers.delete(path, revision=0)
        return kind
    except Unavailable as error:
        raise Failed(f"{error}; {GO_ON}") from error
    except Refused as error:
        if error.http_status == 404:
            return "gone" if _was_there(customers, kind, id) else _HIDDEN
        if error.http_status not in _STAYS:
            raise Failed(f"{error}; {GO_ON}") from error
        return _STAYS[error.http_status]


def _was_there(customers: ServiceClient, kind: Kind, id: int) -> bool:
    """Whether a row that isn't there was deleted, and is not just another user's.

    Without a token nothing is hidden, and a credit has no history of its own.
    """
    if kind == "credits" or not customers.has_token:
        return True
    try:
        customers.get(f"/{kind}/{id}/history?limit=1")
    except Unavailable as error:
        raise Failed(f"{error}; {GO_ON}") from error
    except Refused as error:
        if error.http_status == 404:
            return False
        raise
    return True


def _told(counts: Counter[str]) -> str:
    lines = ["Taken back: " + ", ".join(f"{counts[kind]:,} {kind}" for kind in _ORDER)]
    if counts["gone"]:
        lines.append(f"{counts['gone']:,} had been deleted before")
    if counts["stays"]:
        lines.append(f"{counts['stays']:,} stay")
    return "; ".join(lines) + "."
