"""The store's errors. A driver's errors are translated into these."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw


class StoreError(Exception):
    """The store refused; the class's docstring is the message when none is given."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class StoreUnavailable(StoreError):
    """The database can't be used at the moment.

    Locked, full, read-only, unreadable: nothing was changed, and trying again later may work.
    """


class NotPublished(StoreError):
    """This is recorded, but could not be published in time: it is published as soon as that can be.

    Then the same request, with the same Idempotency-Key, is answered.
    """


class NotInPlace(StoreUnavailable):
    """Another database has the place of this one on the stream: nothing is recorded here (see `status`)."""


class NotPrimary(StoreUnavailable):
    """This is a standby: nothing is recorded here.

    `node` is its number, `url` where the primary's service is to be found, "" where nobody has told.
    """

    def __init__(self, node: int, url: str) -> None:
        place = f"The primary is at {url}" if url else "The primary has told no address"
        super().__init__(f"This is a standby of node {node}: nothing is recorded here. {place}.")
        self.node, self.url = node, url


class NotRenewed(StoreUnavailable):
    """Redis hasn't been reached for so long that a standby may be the primary by now: nothing is recorded."""


class UnusableDatabase(StoreError):
    """The file is not one of Tally's databases, or of a release that this one can't read.

    Trying again will not help; somebody has to look.
    """


class DamagedDatabase(UnusableDatabase):
    """The file at `path` is broken, or none of Tally's: `fault` says how."""

    def __init__(self, path: object, fault: object, remedy: str = "restore it from a backup") -> None:
        super().__init__(f"{path}: {fault}; {remedy}")
        self.fault = fault


class OutdatedDatabase(UnusableDatabase):
    """The file is of an earlier release, and is to be brought up to date first."""


class NotFound(StoreError):
    """There is no such thing: `kind` is what was looked for, `id` its number."""

    def __init__(self, kind: str, id: int) -> None:
        super().__init__(f"There is no {kind} {id}.")


class UnknownReference(StoreError):
    """New rows name something that does not exist.

    `field` is the field that names it, `missing` the index of each such row among those given,
    with the id that it named.
    """

    def __init__(self, field: str, kind: str, missing: list[tuple[int, int]]) -> None:
        super().__init__(f"There is no {kind} {missing[0][1]}.")
        self.field, self.kind, self.missing = field, kind, missing


class NotEmpty(StoreError):
    """The demo is for where nothing is recorded yet."""

    def __init__(self, what: str) -> None:
        super().__init__(f"There are {what} already; the demo is for an empty Tally, so nothing was changed.")


class Misdirected(StoreError):
    """Another node has it: what is asked for is done there.

    `node` is its number, `url` where its service is to be found, "" where nobody has told. `named` has the
    index of each row that names something of that node's, with the id, which `field` of it is.
    """

    def __init__(self, field: str, kind: str, named: list[tuple[int, int]], node: int, url: str) -> None:
        unknown = "whose address is not known: set node.url_customers and node.url_accounts there"
        super().__init__(f"The {kind} {named[0][1]} is of node {node}, {f'at {url}' if url else unknown}.")
        self.field, self.kind, self.named, self.node, self.url = field, kind, named, node, url


class AccountInUse(StoreError):
    """The account still lists customers."""


class Changed(StoreError):
    """The row has another revision than the one that a change was to be made to."""

    def __init__(self, kind: str, id: int, revision: int) -> None:
        super().__init__(f"The {kind} {id} was changed meanwhile: its revision is {revision} now.")


class ReferenceTaken(StoreError):
    """Another invoice, or credit, of the account has the reference.

    `taken` has the index of each such row among those given, its reference, and the id of the other.
    """

    def __init__(self, kind: str, taken: list[tuple[int, str, int]]) -> None:
        _, reference, id = taken[0]
        super().__init__(f"The {kind} {id} of the same account has the reference {reference!r}.")
        self.kind, self.taken = kind, taken


class RepeatedReference(StoreError):
    """Several of the new rows have one reference, and one account.

    `repeated` has the index of each, and of the first with the same.
    """

    def __init__(self, repeated: list[tuple[int, int]]) -> None:
        super().__init__()
        self.repeated = repeated


class MoveRefused(StoreError):
    """A customer can't be moved to an account where one of its references is another's."""


class OverCredited(StoreError):
    """The credits of an invoice would be more than its amount.

    `field` is the field that makes it so, `refused` the index of each such row among those given, and why.
    """

    def __init__(self, field: str, refused: list[tuple[int, str]]) -> None:
        super().__init__(refused[0][1])
        self.field, self.refused = field, refused


class CustomerInUse(StoreError):
    """A customer that is to be deleted only while it is empty has invoices or credits."""


class InvoiceCredited(StoreError):
    """An invoice with credits can't be deleted."""


class KeyReused(StoreError):
    """The Idempotency-Key was used before, for another request."""


_PASSING: dict[type[apsw.Error], str] = {
    apsw.BusyError: "; end the program that holds it, if that lasts (`fuser` tells which)",
    apsw.LockedError: "",
    apsw.FullError: "; make room on its disk",
    apsw.IOError: "; look at its disk (`dmesg`)",
    apsw.ReadOnlyError: "; make its file and its disk writable",
    apsw.CantOpenError: "; give this user the right to its file and directory",
    apsw.PermissionsError: "",
    apsw.NoMemError: "",
    apsw.ProtocolError: "",
}
"""SQLite's errors for what passes, or can be mended while Tally runs, and how."""


DAMAGE = (apsw.NotADBError, apsw.CorruptError)
"""SQLite's errors for a file that is no SQLite file, or whose pages are broken."""


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn SQLite's errors about the file at `path` into ours. Errors of a statement are bugs, and stay."""
    try:
        yield
    except tuple(_PASSING) as error:
        raise StoreUnavailable(f"{path}: {error}{_PASSING.get(type(error), '')}") from error
    except DAMAGE as error:
        raise DamagedDatabase(path, error) from error
