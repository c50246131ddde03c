"""The two services: their databases, how they handle events, and their parts."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tally.actors.consumer import Consumer
from tally.actors.metrics import EventMetrics
from tally.config import ConsumersSettings, Settings
from tally.events import Event
from tally.recovery.answering import Answering
from tally.recovery.missing import Missing
from tally.recovery.taking_back import Store
from tally.store import accounts, customers, nodes
from tally.store.consumer_group import ConsumerGroup
from tally.store.database import Database, OpenDatabase
from tally.store.errors import StoreError
from tally.store.incarnations import own_sources
from tally.store.stream import EventStream


class Service(NamedTuple):
    """A service: its database, the events that change something in it, and the actors' parts that use it.

    It must have every event of the sources whose names begin with `source_prefix`. If it `is_made_late`, its
    relay makes the database, once Redis has told that there is no other.
    """

    name: str
    open: OpenDatabase
    store: Callable[[Database], Store]
    concerns: tuple[type[Event], ...]
    source_prefix: str
    is_made_late: bool

    @property
    def concerns_itself(self) -> bool:
        """Whether it applies the events that it published itself."""
        return self.concerns == (Event,)

    def answering(self, database: Database, stream: EventStream) -> Answering:
        """Makes the part that answers groups that ask for the service's events."""
        store = self.store(database)

        def state(group: str) -> Iterable[Event] | None:
            return None if group.startswith(f"{self.name}@") else store.state()

        return Answering(database, stream, state)

    def wants(self, database: Database, source: str) -> bool:
        """Whether its database must have every event of that source. It is handed none of its own."""
        return source.startswith(self.source_prefix) and source not in own_sources(database)

    def consumer(
        self,
        name: str,
        siblings: Collection[str],
        database: Database,
        stream: EventStream,
        settings: ConsumersSettings,
        ring: Callable[[], None],
        metrics: EventMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Consumer:
        """One of the service's consumers; `ring` is called when it may have written events."""
        store = self.store(database)
        return Consumer(
            ConsumerGroup(stream, database.source, name),
            database,
            store.apply,
            after_commit=(lambda: None) if self.concerns_itself else ring,
            settings=settings,
            siblings=siblings,
            concerns=self.concerns,
            follow_up=store.follow_up,
            missing=Missing(database, stream, lambda source: self.wants(database, source), clock),
            metrics=metrics or EventMetrics(),
            clock=clock,
        )


class Differs(StoreError):
    """A standby's database, `source`, has other events than its primary; the message says what to do."""

    def __init__(self, database: Database) -> None:
        super().__init__(
            f"{database.path} has other events than the primary under the same numbers: keep it aside, and "
            "begin it again from a `backup` of the primary, with `join`"
        )
        self.source = database.source


def url_of(settings: Settings, service: str) -> str:
    """The URL at which others find this machine's service."""
    node = settings.node
    return node.url_customers if service == customers.SERVICE else node.url_accounts


def followers(directory: Path, opened: Callable[[str], Database]) -> Iterator[Database]:
    """The databases in the directory that follow a primary, each open until the next one. Raises Differs."""
    for service in SERVICES:
        if (directory / f"{service}.db").exists():
            with closing(opened(service)) as database:
                if nodes.differs(database):
                    raise Differs(database)
                if nodes.follows(database):
                    yield database


CUSTOMERS = Service(
    customers.SERVICE,
    customers.open_database,
    customers.Customers,
    customers.CONCERNS,
    source_prefix=f"{accounts.SERVICE}@",
    is_made_late=True,
)
ACCOUNTS = Service(
    accounts.SERVICE,
    accounts.open_database,
    accounts.Accounts,
    (Event,),
    source_prefix="",
    is_made_late=False,
)
SERVICES = {service.name: service for service in (CUSTOMERS, ACCOUNTS)}
