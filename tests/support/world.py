"""A world with a Tally in it: clients, other programs, faults and an operator, on one clock.

All of Tally is real, except its processes, which take turns here, and Redis, which is the double. A history
is a list of steps, each with a seed of its own. So one step can be left out, and the others stay the same.
"""

import math
import random
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from datetime import date, timedelta
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import redis
from msgspec import UNSET, to_builtins

from support import at_once
from support.figures import revenue_by_customer
from support.redis_double import Line, RedisDouble
from tally.actors.consumer import Consumer
from tally.actors.housekeeper import Housekeeper
from tally.actors.relay import Relay
from tally.actors.services import ACCOUNTS, CUSTOMERS, SERVICES, Service
from tally.config import ConsumersSettings
from tally.events import Id
from tally.http.status import StatusProbe, StatusReport
from tally.recovery import first_start, joining, lost_customers
from tally.recovery.rebuilding import Rebuilding
from tally.recovery.standing import Standing
from tally.store import accounts, customers, nodes
from tally.store.accounts import AccountChange, Accounts, NewAccount
from tally.store.copying import copy_database
from tally.store.customer_list import CustomerQuery
from tally.store.customers import Customers
from tally.store.database import Database
from tally.store.dead_letters import DeadLetters
from tally.store.errors import InvoiceCredited, NotFound, NotInPlace, OverCredited, StoreError
from tally.store.groups import Groups
from tally.store.ids import SPAN
from tally.store.inbox import Inbox
from tally.store.incarnations import own_sources
from tally.store.listing import ListQuery
from tally.store.membership import LEASE_SECONDS, AtWorkElsewhere, Awaited, Membership, read_nodes, remove
from tally.store.months import Months
from tally.store.nodes import WrongNumber
from tally.store.records import (
    Customer,
    CustomerChange,
    InvoiceChange,
    NewCredit,
    NewCustomer,
    NewInvoice,
)
from tally.store.stream import Age, EventStream
from tally.store.write_permission import WritePermission

KEY = "event-stream"
DAY = 86_400.0
RETENTION_DAYS = 7
CONSUMERS = {
    "customers": ("customers-consumer-1",),
    "accounts": ("accounts-consumer-1", "accounts-consumer-2"),
}
MARK = 10**7  # an invoice is known by its amount modulo this
FOREIGN = 10**6  # customers of other programs have numbers from here on
FOREIGN_CENTS = 10**11  # their invoices have this amount and a tag, more than all of ours together
ROUNDS = 400  # all must have settled after so many
ROUND_SECONDS = 30  # of the world's time, for each
LATER = 5  # from this round on, remaining troubles need a person


def relay_of(
    service: Service,
    database: Database,
    stream: EventStream,
    standing: Standing,
    clock: Callable[[], float],
    membership: Membership,
) -> Relay:
    """The service's relay, as its process makes it, but with small batches."""
    return Relay(
        database,
        stream,
        standing.settle,
        clock=clock,
        pass_over=not service.concerns_itself,
        batch=3,
        holder=membership.holder,
    )


class Refused(Exception):
    """`run` refuses to start; the message says why."""


class Tally:
    """The running processes of one data directory, for some of the services."""

    def __init__(
        self,
        world: "World",
        directory: Path,
        services: tuple[Service, ...] = (CUSTOMERS, ACCOUNTS),
        number: int = 0,
    ) -> None:
        self._world = world
        self.number = number
        self._services = services
        self.directory = directory
        self._run = f"{world.random.getrandbits(64):x}"
        self._permissions = {service: WritePermission(clock=world.clock) for service in SERVICES}
        self.lines: dict[str, Line] = {}
        self.parts: dict[str, Callable[[], bool]] = {}  # each returns whether there may be more to do
        self.databases: dict[str, Database] = {}

    def start(self) -> None:
        """Start as the supervisor does: the relays, then the rest. Raises Refused."""
        stream = self._world.stream()
        try:
            first_start.insist_on_no_other(self.directory, stream, "redis", self.number)
        except first_start.LostDatabase as error:
            raise Refused(str(error)) from error
        if not (self.directory / customers.FILE).exists():
            first_start.make(self.directory, self.number)
        # Opened before all others: when the last connection closes, SQLite copies and removes the log.
        self.customers = Customers(self._open(CUSTOMERS, "customers-http"))
        if ACCOUNTS in self._services:
            if not (self.directory / accounts.FILE).exists():
                (self.directory / accounts.FILE).write_bytes(_new_accounts())
            self.accounts = Accounts(self._open(ACCOUNTS, "accounts-http"))
            nodes.assign(self.accounts.database, self.number)
        for service in self._services:
            self.start_relay(service)
        for service in self._services:
            for name in CONSUMERS[service.name]:
                self.start_consumer(service, name)

    def stop(self) -> None:
        """Stop as with SIGKILL, between any two steps."""
        for database in self.databases.values():
            database.close()
        self.parts.clear()

    def _open(self, service: Service, name: str) -> Database:
        if name in self.databases:
            self.databases[name].close()
        database = service.open(self.directory, make=False)
        permission = self._permissions[service.name]
        database.run, database.is_newest = self._run, permission.is_confirmed
        database.refusal = partial(permission.refusal, database.node)
        self.databases[name] = database
        return database

    def _stream(self, name: str) -> EventStream:
        self.lines[name] = Line(at_once.pause)
        return EventStream(self._world.redis.client(self.lines[name]), KEY)

    def start_relay(self, service: Service) -> None:
        """Start a relay, or a new one in its place, until the HTTP processes may start."""
        name = f"{service.name}-relay"
        stream, database = self._stream(name), self._open(service, name)
        store = service.store(database)
        may_replace: Literal["", "idle"] = "idle" if service is ACCOUNTS else ""  # with customers.db in place
        place = str(self.directory)
        membership = Membership(
            database,
            stream,
            wait_seconds=0,
            place=place,
            may_replace=may_replace,
            clock=self._world.clock,
        )
        standing = Standing(store, stream, permission=self._permissions[service.name], membership=membership)
        clock = self._world.clock
        relay = relay_of(service, database, stream, standing, clock, membership)
        housekeeper = Housekeeper(
            database, stream, timedelta(days=RETENTION_DAYS), self.groups, clock, self._world.wall
        )
        answering = service.answering(database, stream)

        def step() -> bool:
            published = relay.step()
            if not published:
                relay.look_again()
            more = housekeeper.step()
            if not relay.refusal:
                more |= answering.step()
            return more or published > 0

        self.parts[name] = step
        try:
            relay.step()
        except WrongNumber as error:
            raise Refused(str(error)) from error
        except (redis.ConnectionError, StoreError):
            pass  # this can't be checked now

    def start_consumer(self, service: Service, name: str) -> None:
        """Start a consumer, or a new one in its place."""
        settings = ConsumersSettings(batch=4, claim_idle_ms=1000, max_deliveries=3)
        database = self._open(service, name)
        consumer: Consumer = service.consumer(
            name,
            CONSUMERS[service.name],
            database,
            self._stream(name),
            settings,
            ring=lambda: None,
            clock=self._world.clock,
        )

        def step() -> bool:
            before = database.transactions
            consumer.step()
            return database.transactions > before

        self.parts[name] = step

    def replace(self, name: str) -> None:
        """Start a new process in the place of a killed one."""
        service = SERVICES[name.partition("-")[0]]
        if name.endswith("relay"):
            self.start_relay(service)
        else:
            self.start_consumer(service, name)

    def groups(self) -> dict[str, Age]:
        """The groups of the databases in this directory, also of a service that doesn't run."""
        there = {database.service: database for database in self.databases.values()}
        ages = {database.source: Inbox(database).age() for database in there.values()}
        for service in SERVICES.values():
            if service.name not in there:
                with suppress(StoreError), closing(service.open(self.directory, make=False)) as database:
                    ages[database.source] = Inbox(database).age()
        return ages

    def status(self, service: Service) -> StatusReport:
        """The report of a service's `GET /status`."""
        database = self.databases[f"{service.name}-http"]
        opened: AbstractContextManager[Database] = nullcontext(database)
        return StatusProbe(service.name, lambda: opened, self.directory, self._world.stream, list)()


def _new_accounts() -> bytes:
    """A new accounts.db with a unique identity. To make one from nothing takes a millisecond."""
    made, identity = _made_accounts()
    return made.replace(identity, secrets.token_hex(4).encode())


@cache
def _made_accounts() -> tuple[bytes, bytes]:
    """An accounts.db, and its identity, which must be in the file once."""
    with tempfile.TemporaryDirectory() as directory:
        with closing(ACCOUNTS.open(Path(directory))) as database:
            identity = database.identity.encode()
        made = (Path(directory) / accounts.FILE).read_bytes()
    assert made.count(identity) == 1
    return made, identity


class Copy(NamedTuple):
    """A copy of a database, its names, and the deletions that it knows."""

    file: Path
    sources: frozenset[str]
    gone: frozenset[object]


class Told(NamedTuple):
    """The facts in the stream's events."""

    created: set[object]
    deleted: set[object]
    foreign: set[int]
    customers: set[str]  # the ids of those that were created


class Invoice(NamedTuple):
    """An accepted invoice. It is known by its amount in cents, modulo MARK; see `change_invoice`."""

    cents: int
    customer: str


def _count(cents: int, revenue: int | None) -> int:
    """How often `revenue` has another program's invoice of so many cents; the rest of it is ours."""
    return round((revenue or 0) / cents)


def _is_well(report: StatusReport) -> bool:
    """Whether there is nothing to do, for people or for Tally itself."""
    return report.status == "ok" and not report.outbox_depth and not any((report.redis.lag or {}).values())


def _what_lasts(report: StatusReport) -> StatusReport:
    """A report without the values that change by themselves or with the machine's load."""
    return msgspec.structs.replace(report, nodes=[], disk_free_bytes=None)


class World:
    """One history, from its seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self._now = 1_700_000_000.0
        self._skew = self.random.uniform(-50, 50)
        release = self.random.choice([(6, 2), (7, 0), (8, 0)])
        self.redis = RedisDouble(lambda: int((self._now + self._skew) * 1000), release)
        self._directory = directory
        self.data = directory / "data"
        self.data.mkdir()
        self._states: list[dict[bytes, Any]] = [self.redis.state()]
        self._copies: dict[str, list[Copy]] = {"customers": [], "accounts": []}
        self._tags = 0
        self.accounts: set[str] = set()  # names
        self.names: dict[str, str] = {}  # of customers, each with its account's name, if that was open
        self._named: dict[str, set[str]] = {}  # the names for an id, which two databases may give
        self.invoices: dict[int, Invoice] = {}
        self.amounts: dict[int, set[int]] = {}  # the amounts that each invoice was given
        self.gone: set[object] = set()  # deleted invoices and customers
        self._known_gone: set[object] = set()  # those that customers.db surely knows
        self._gone_at_1: set[object] = set()  # those that node 1's customers.db knows, which is never lost
        self.doubtful: set[object] = set()  # things that were in one place only, which was lost
        self.foreign: dict[int, int] = {}  # other programs' invoices: their cents, each with its customer
        self.forgotten: set[int] = set()  # those that may be counted again, as no inbox knows them any more
        self._given_up = False  # whether the old customers were given up for an empty customers.db
        self.tally: Tally | None = None
        self.refusal = ""
        self._reports: list[StatusReport] = []  # from when the world had come to rest
        self._other: Tally | None = None  # a copy of the machine, which runs the customers service
        self._node_1 = directory / "node-1"
        self.second: Tally | None = None  # node 1

    # Time

    def clock(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        self._now += seconds

    # Start and stop

    def stream(self) -> EventStream:
        return EventStream(self.redis.client(), KEY)

    def _tag(self) -> int:
        self._tags += 1
        return self._tags

    def start(self) -> None:
        """Start Tally if it doesn't run, and node 1 again."""
        self._start_node_1()
        if self.tally is None:
            if not (self.redis.keys or self.second or any(self.data.glob("*.db"))):
                self._states = self._states[:1]  # nobody could tell whose the older states are, or the copies
                self._copies = {name: [] for name in self._copies}
            tally, is_new = Tally(self, self.data), not (self.data / customers.FILE).exists()
            try:
                tally.start()
            except Refused as error:
                self.refusal = str(error)
                tally.stop()
            else:
                self.tally, self.refusal = tally, ""
                self._forget_strangers()
                if is_new:  # nobody knew of another one, whose numbers it gives again
                    self._copies["customers"].clear()

    def _forget_strangers(self) -> None:
        """Drop copies of another accounts.db than the present one, which has given the same numbers again.

        If both have given a number, status says so, but nothing can tell whose it was.
        """
        with self._opened(ACCOUNTS, self.data) as database:
            ours = own_sources(database)
        self._copies["accounts"] = [copy for copy in self._copies["accounts"] if copy.sources & ours]

    def stop(self) -> None:
        """Kill all its processes."""
        if self.tally:
            self.tally.stop()
            self.tally = None

    def another_node_begins(self) -> None:
        """Start node 1 on the same Redis; if it was there before, it continues.

        Until a new node has read the stream, nobody knows of it, and old entries may be trimmed.
        """
        if not self._node_1.exists():
            self.doubtful |= self._others()
        self._node_1.mkdir(exist_ok=True)
        self._start_node_1()

    def another_node_is_killed(self) -> None:
        if self.second:
            self.second.stop()
            self.second = None

    def _start_node_1(self) -> None:
        if self._node_1.exists() and self.second is None:
            second = Tally(self, self._node_1, number=1)
            second.start()  # node 1 never loses anything: so it is never refused
            self.second = second

    def end(self) -> None:
        """Stop everything."""
        self.stop()
        self.another_node_is_killed()
        if self._other:
            self._other.stop()

    def _running(self) -> list[Tally]:
        return [tally for tally in (self.tally, self._other, self.second) if tally]

    def _nodes(self) -> list[Tally]:
        """The running Tallys, without the copy."""
        return [tally for tally in (self.tally, self.second) if tally]

    @property
    def is_down(self) -> bool:
        """Whether only node 1 runs: then it trims entries that node 0 may not have read."""
        return self.tally is None and self.second is not None

    def _one_of_the_nodes(self) -> Tally | None:
        running = self._nodes()
        return self.random.choice(running) if running else None

    def _one_that_runs(self) -> Tally | None:
        running = self._running()
        return self.random.choice(running) if running else None

    # Clients

    def open_account(self) -> None:
        if tally := self._one_of_the_nodes():
            name = f"a{self._tag()}"
            with tally.accounts.database.transaction():
                tally.accounts.create_account(NewAccount(name, "u"))
            self.accounts.add(name)

    def change_account(self) -> None:
        """Change an account's description, at the node that opened it."""
        if tally := self._one_of_the_nodes():
            own = [a for a in tally.accounts.accounts(-1, 1000) if a.id // SPAN == tally.number]
            if own:
                with tally.accounts.database.transaction():
                    change = AccountChange(description=f"d{self._tag()}")
                    tally.accounts.change_account(self.random.choice(own).id, change)

    def create_customers(self) -> None:
        if tally := self._one_that_runs():
            accounts = self.tally.accounts.accounts(-1, 1000) if self.tally else []
            opened = {int(each.id): each.name for each in accounts}
            account = self.random.choice([1, 2, 3, *opened])
            names = [f"c{self._tag()}" for _ in range(self.random.randint(1, 2))]
            with tally.customers.database.transaction():
                new = [NewCustomer(name, Id(account)) for name in names]
                ids = tally.customers.create_customers(new)
            self.names.update(dict.fromkeys(names, opened.get(account, "")))
            for id, name in zip(ids, names, strict=True):
                self._named.setdefault(str(id), set()).add(name)

    def create_invoices(self) -> None:
        tally = self._one_that_runs()
        if tally and (known := tally.customers.customers(CustomerQuery(limit=1000))):
            customer = self.random.choice(known)
            cents = [self._tag() for _ in range(self.random.randint(1, 5))]
            new = [NewInvoice(customer.id, date(2019, 1, 6), each) for each in cents]
            with tally.customers.database.transaction():
                tally.customers.create_invoices(new)
            self.invoices.update({each: Invoice(each, customer.name) for each in cents})
            self.amounts.update({each: {each} for each in cents})

    def change_invoice(self) -> None:
        """Change an invoice's amount; its mark stays the same. Not in the copy that runs beside."""
        tally = self._one_of_the_nodes()
        if tally and (known := tally.customers.invoices(ListQuery(limit=1000))):
            invoice = self.random.choice(known)
            mark = invoice.purchase_price_cents % MARK
            cents = mark + MARK * self._tag()
            change = InvoiceChange(purchase_price_cents=cents, purchase_date=date(2019, 1, 7))
            with suppress(OverCredited), tally.customers.database.transaction():
                tally.customers.change_invoice(invoice.id, change)
                self.amounts[mark].add(cents)

    def create_credit(self) -> None:
        """Credit an invoice if its amount allows, else its customer. The mark is the amount, below zero."""
        tally = self._one_that_runs()
        if tally and (known := tally.customers.invoices(ListQuery(limit=1000))):
            invoice, cents = self.random.choice(known), self._tag()
            left = invoice.purchase_price_cents - tally.customers.credits.of_invoice(invoice.id)
            of = invoice.id if left >= cents else UNSET
            with tally.customers.database.transaction():
                new = NewCredit(invoice.customer_id, date(2019, 2, 6), cents, of)
                tally.customers.credits.create([new])
            name = tally.customers.customer(invoice.customer_id).name
            self.invoices[-cents] = Invoice(-cents, name)

    def delete_credit(self) -> None:
        tally = self._one_of_the_nodes()
        if tally and (known := tally.customers.credits.page(ListQuery(limit=1000))):
            credit = self.random.choice(known)
            with tally.customers.database.transaction():
                tally.customers.credits.delete(credit.id)
            self._is_gone(-credit.credited_cents, tally)

    def move_customer(self) -> None:
        tally = self._one_of_the_nodes()
        if tally and (known := tally.customers.customers(CustomerQuery(limit=1000))):
            customer = self.random.choice(known)
            change = CustomerChange(account_id=Id(self.random.choice([1, 2, 3])))
            with tally.customers.database.transaction():
                tally.customers.change_customer(customer.id, change)
            self.names[customer.name] = ""  # it may get into an account that is opened later

    def delete_invoice(self) -> None:
        tally = self._one_of_the_nodes()
        if tally and (known := tally.customers.invoices(ListQuery(limit=1000))):
            invoice = self.random.choice(known)
            with suppress(InvoiceCredited), tally.customers.database.transaction():
                tally.customers.delete_invoice(invoice.id)
                self._is_gone(invoice.purchase_price_cents % MARK, tally)

    def delete_customer(self) -> None:
        tally = self._one_of_the_nodes()
        if tally and (known := tally.customers.customers(CustomerQuery(limit=1000))):
            customer = self.random.choice(known)
            with tally.customers.database.transaction():
                tally.customers.delete_customer(customer.id)
            self._is_gone(customer.name, tally)

    def _is_gone(self, what: object, at: Tally) -> None:
        self.gone.add(what)
        (self._known_gone if at is self.tally else self._gone_at_1).add(what)

    # Processes

    def part_turns(self) -> None:
        if tally := self._one_that_runs():
            self._turn(tally, self.random.choice([*tally.parts]))

    def all_turn(self) -> None:
        for tally in self._running():
            for name in [*tally.parts]:
                if name in tally.parts:
                    self._turn(tally, name)

    def parts_turn_at_once(self) -> None:
        """Some parts take turns at the same time, while clients ask and time passes."""
        self._turn_at_once({each: self._begun(*each) for each in self._some_parts(2)})

    def part_is_killed_at_its_work(self) -> None:
        """A part is killed at any command or transaction, while others take turns or none."""
        if chosen := self._some_parts(1):
            (tally, name), *others = chosen
            killed = self._begun(tally, name, self.random.randint(0, 40))
            self._turn_at_once({(tally, name): killed} | {each: self._begun(*each) for each in others})
            if tally in self._running():
                self._replace(tally, name)

    def _some_parts(self, least: int) -> list[tuple[Tally, str]]:
        every = [(tally, name) for tally in self._running() for name in tally.parts]
        return self.random.sample(every, min(len(every), self.random.randint(least, 5)))

    def _turn_at_once(self, turns: Mapping[tuple[Tally, str], at_once.Turn]) -> None:
        for (tally, name), error in at_once.take(turns, self.random, self._meanwhile).items():
            if tally in self._running():
                self._end_turn(tally, name, error)

    def _begun(self, tally: Tally, name: str, lives: float = math.inf) -> at_once.Turn:
        times = self.random.randint(1, 3)
        return at_once.Turn(partial(self._outcome, tally, name, times), tally.databases[name], lives)

    def _meanwhile(self) -> None:
        (happens,) = self.random.choices([*MEANWHILE], [*MEANWHILE.values()])
        with suppress(NotFound, NotInPlace):
            getattr(self, happens)()

    def _turn(self, tally: Tally, name: str) -> None:
        if error := self._outcome(tally, name):
            self._end_turn(tally, name, error)

    def _outcome(self, tally: Tally, name: str, times: int = 1) -> Exception | None:
        """Let a part take turns, up to its first error, which is answered."""
        try:
            for _ in range(times):
                tally.parts[name]()
        except (WrongNumber, redis.ConnectionError, StoreError) as error:
            return error
        return None

    def _end_turn(self, tally: Tally, name: str, error: Exception) -> None:
        """Some processes end with their error: then others take their places."""
        if isinstance(error, WrongNumber):
            self._is_refused(error)
        elif self.random.random() < 0.5:
            self._replace(tally, name)

    def _replace(self, tally: Tally, name: str) -> None:
        try:
            tally.replace(name)
        except Refused as error:
            self._is_refused(error)
        except StoreError:
            pass  # it ends, and another is started later

    def _is_refused(self, error: WrongNumber | Refused) -> None:
        """Redis knows a node 0 again that was lost and replaced."""
        self.stop()
        self.refusal = str(error)

    def part_is_killed(self) -> None:
        if tally := self._one_of_the_nodes():
            self._replace(tally, self.random.choice([*tally.parts]))

    def tally_is_killed(self) -> None:
        self.stop()

    def tally_is_started(self) -> None:
        self.start()

    # Time passes

    def moments_pass(self) -> None:
        self.pass_time(self.random.uniform(0.001, 3))

    def days_pass(self) -> None:
        """Old entries may be trimmed before a new node has its group."""
        self.pass_time(self.random.uniform(0.1, 3 * RETENTION_DAYS) * DAY)
        if self._node_1.exists():  # running or killed
            with self._opened(ACCOUNTS, self._node_1) as database:
                if database.source not in self._groups():
                    self.doubtful |= self._others()

    # Others

    def another_program_publishes(self) -> None:
        """Its customer is one of its own, or one of ours, and has no other invoice of this kind."""
        tag = self._tag()
        cents = FOREIGN_CENTS + tag
        ours = sorted({int(id) for id in self._told().customers} - {*self.foreign.values()})
        customer = self.random.choice([FOREIGN + tag, *ours[:1], *ours[-1:]])
        self.foreign[cents] = customer
        fields: dict[Any, Any] = {
            "EventTypeName": "InvoiceCreated",
            "Payload": f'{{"id":"1","customer_id":"{customer}","purchase_price_cents":{cents},'
            '"created_date":"0001-01-01T00:00:00Z","purchase_date":"2019-01-09"}',
        }
        if self.random.random() < 0.5:
            fields["EventId"] = f"other:{len(self.foreign)}"
        for _ in range(self.random.choice([1, 2]) if "EventId" in fields else 1):
            self.redis.client().xadd(KEY, fields)

    def another_program_publishes_poison(self) -> None:
        fields: dict[Any, Any] = {"EventTypeName": "InvoiceCreated", "Payload": "{"}
        if self.random.random() < 0.5:
            fields["EventId"] = f"poison:{self.random.randint(1, 3)}"
        self.redis.client().xadd(KEY, fields)

    def another_program_trims(self) -> None:
        self.redis.client().execute_command("XTRIM", KEY, "MAXLEN", self.random.randint(0, 20))  # type: ignore[no-untyped-call]

    def another_program_deletes_entries(self) -> None:
        entries: Any = self.redis.client().xrange(KEY)
        if entries:
            ids = [id for id, _ in self.random.sample(entries, min(len(entries), 3))]
            self.redis.client().xdel(KEY, *ids)

    def a_group_is_set_to_the_end(self) -> None:
        """Unread events of other programs are lost: Redis doesn't know how far the groups had read."""
        self.doubtful |= self.foreign.keys() - self._shown_foreign()
        if groups := self._groups():
            self.redis.client().xgroup_setid(KEY, self.random.choice(groups), "$")

    def a_group_is_destroyed(self) -> None:
        if groups := self._groups():
            self.redis.client().xgroup_destroy(KEY, self.random.choice(groups))

    def _groups(self) -> list[str]:
        with suppress(redis.ResponseError):
            return [group["name"].decode() for group in self.redis.client().xinfo_groups(KEY)]
        return []

    # Faults

    def a_line_breaks(self) -> None:
        if tally := self._one_of_the_nodes():
            line = tally.lines[self.random.choice([*tally.parts])]
            line.break_at(self.random.choice(["before", "after"]), self.random.randint(0, 4))

    def redis_is_saved(self) -> None:
        self._states.append(self.redis.state())

    def redis_falls_back(self) -> None:
        self._is_replaced(self.random.choice(self._states))

    def redis_falls_back_a_little(self) -> None:
        """As if a replica took over that lacked the newest writes."""
        self._is_replaced(self._states[-1])

    def _is_replaced(self, state: dict[bytes, Any]) -> None:
        self.redis.go_back(state)
        self.forgotten |= self._others(nameless=True)  # the inbox keeps other names for the retention
        for line in [line for tally in self._running() for line in tally.lines.values()]:
            line.break_at("before", 0)

    def _others(self, nameless: bool = False) -> set[int]:
        """Other programs' invoices in events older than the retention: only `nameless` events, or all."""
        found = set()
        oldest = int((self.wall() - RETENTION_DAYS * DAY) * 1000)
        entries: Any = self.redis.client().xrange(KEY, "-", str(oldest))
        for _, fields in entries:
            if b"EventId" in fields and nameless:
                continue
            with suppress(msgspec.DecodeError):
                told = msgspec.json.decode(fields[b"Payload"])
                found.add(told.get("purchase_price_cents", 0))
        return found & self.foreign.keys()

    def redis_loses_everything(self) -> None:
        self.redis.client().flushall()

    def the_stream_is_deleted(self) -> None:
        self.redis.client().delete(KEY)

    def a_copy_is_made(self) -> None:
        for name in self.random.choice([["customers"], ["accounts"], ["customers", "accounts"]]):
            if (self.data / f"{name}.db").exists():
                copy = self._directory / f"copy-{self._tag()}.db"
                copy_database(self.data / f"{name}.db", copy, lambda done: None)
                with closing(SERVICES[name].open(self.data, make=False)) as database:
                    sources = frozenset(own_sources(database))
                self._copies[name].append(Copy(copy, sources, frozenset(self._known_gone)))

    def a_copy_is_put_back(self) -> None:
        name = self.random.choice(["customers", "accounts"])
        if self._copies[name]:
            self.stop()
            self._put_back(name, self.random.choice(self._copies[name]))
            if self.random.random() < 0.7:
                self.start()

    def _put_back(self, name: str, copy: "Copy") -> None:
        self.remove(name)
        shutil.copy(copy.file, self.data / f"{name}.db")
        if name == "customers":
            self._known_gone = {*copy.gone}

    def remove(self, name: str) -> None:
        """Remove a service's database, while nothing runs."""
        if name == "customers":
            self._known_gone.clear()
        for suffix in ("", "-wal", "-shm"):
            (self.data / f"{name}.db{suffix}").unlink(missing_ok=True)

    def a_database_is_lost(self) -> None:
        self.stop()
        self.remove(self.random.choice(["customers", "accounts"]))
        self.start()

    def the_machine_is_copied(self) -> None:
        """Both machines run, as far as the lease allows: changes that the copy accepts count, too."""
        if self._other is None and (self.data / customers.FILE).exists():
            directory = self._directory / "other"
            directory.mkdir()
            copy_database(self.data / customers.FILE, directory / customers.FILE, lambda done: None)
            self._other = Tally(self, directory, (CUSTOMERS,))
            self._other.start()

    def a_second_tally_is_started(self) -> None:
        """It uses the same Redis, with its own directory."""
        if self.tally and self.stream().is_known(self.tally.customers.database.source):
            directory = self._directory / f"second-{self._tag()}"
            directory.mkdir()
            try:
                Tally(self, directory).start()
            except Refused:
                return
            raise AssertionError("a second Tally was let start")

    # The operator

    def dead_letters_are_redriven(self) -> None:
        letters = DeadLetters(self.stream())
        for letter in letters.all():
            with suppress(Exception):
                letters.redrive(letter)

    def dead_letters_are_discarded(self) -> None:
        """Discard the unreadable ones."""
        letters = DeadLetters(self.stream())
        for letter in letters.all():
            if letter.entry.fields.get(b"Payload") == b"{":
                letters.discard(letter)

    def somebody_mends(self) -> None:
        """Do what the message of the refused start says."""
        if self.tally or not self.refusal:
            return
        if "`nodes remove 0`" in self.refusal:
            gone = {name: node for name, node in read_nodes(self.stream()).items() if node.number == 0}
            if gone:  # else Redis has lost them since
                remove(self.stream(), gone)
            for name in gone:
                Groups(self.stream()).remove(name)
            self.start()
            return
        if (self.data / customers.FILE).exists():  # one that has published nothing, beside others that have
            self.remove("customers")
            self.note_losses()
            self.start()
            return
        ways: list[Copy | None] = [None, *self._copies["customers"]]
        self.random.shuffle(ways)
        for copy in ways:
            try:
                self._recover(copy)
            except lost_customers.CannotRecover as error:
                if "`--source`" not in str(error):
                    continue
                self._recover(None, self.random.choice(re.findall(r"customers@\w+", str(error))))
                self.doubtful |= self._told().created - self._recorded()  # the others' are in no list
                self._given_up = True
            break
        else:
            lost_customers.begin_empty(self.data)
            self._given_up = True
        self.start()

    def _recover(self, copy: "Copy | None", wanted: str | None = None) -> None:
        lost_customers.recover(self.data, self.stream(), copy and copy.file, wanted=wanted)
        self._known_gone = {*copy.gone} if copy else set()

    def rebuild_accounts(self, directory: Path | None = None) -> str:
        """Run the command, by default at node 0, with any loss that it tells; return its message."""
        losses: list[str] = []

        def confirm(loss: str) -> bool:
            losses.append(loss)
            return True

        rebuilding = Rebuilding(directory or self.data, self.stream(), confirm)
        try:
            told = rebuilding.run()
        finally:
            rebuilding.close()
        if losses or "revenue was" in told:
            self.doubtful |= self.lost_foreign()
        return told

    # Losses

    def note_losses(self) -> None:
        """Note accepted things that are now in no place any more: nobody can bring them back."""
        here = self._recorded()
        told = self._told()
        for each in (*self.invoices, *self.names, *self.accounts):
            lost = each not in here | told.created
            if each in self.gone:  # no record shows a deleted thing: look for its deletion
                lost = each not in self._known_gone | self._gone_at_1 | told.deleted
            if lost:
                self.doubtful.add(each)
        self.doubtful |= self.lost_foreign()

    def lost_foreign(self) -> set[int]:
        """The other programs' invoices that a node doesn't show and the stream doesn't hold."""
        return self.foreign.keys() - self._shown_foreign() - self._told().foreign

    def _shown_foreign(self) -> set[int]:
        """The other programs' invoices that every node's accounts.db has counted."""
        shown = {*self.foreign}
        for directory in (self.data, *([self._node_1] if self._node_1.exists() else [])):
            if not (directory / accounts.FILE).exists():
                return set()
            with self._opened(ACCOUNTS, directory) as database:
                rows = revenue_by_customer(database)
                shown &= {
                    cents for cents, customer in self.foreign.items() if _count(cents, rows.get(customer))
                }
        return shown

    def _opened(self, service: Service, directory: Path) -> AbstractContextManager[Database]:
        """An existing database: the connection of a Tally that runs with it, else a new one."""
        for tally in self._running():
            if tally.directory == directory and (database := tally.databases.get(f"{service.name}-http")):
                return nullcontext(database)
        return closing(service.open(directory, make=False))

    def _recorded(self, places: Collection[Path] = ()) -> set[object]:
        """The content of the databases in `places`, by default of all."""
        queries = {
            CUSTOMERS: f"SELECT purchase_price_cents % {MARK} FROM invoice"
            " UNION ALL SELECT -credited_cents FROM credit UNION ALL SELECT name FROM customer",
            ACCOUNTS: f"SELECT name FROM account WHERE name IS NOT NULL AND id / {SPAN} = ?",
        }
        found: set[object] = set()
        everywhere = [self.data, self._node_1, *([self._other.directory] if self._other else [])]
        for directory in places or everywhere:
            for service, query in queries.items():
                if (directory / f"{service.name}.db").exists():
                    with self._opened(service, directory) as database:
                        bindings = (database.node,) if service is ACCOUNTS else ()  # those opened here
                        found |= {each for (each,) in database.rows(query, bindings)}
        return found

    def _told(self) -> "Told":
        told = Told(set(), set(), set(), set())
        stream = self.redis.keys.get(KEY.encode())
        for fields in stream.entries.values() if stream else ():
            event = dict(zip(fields[::2], fields[1::2], strict=True))
            with suppress(msgspec.DecodeError):
                payload = msgspec.json.decode(event.get(b"Payload", b"{}"))
                kind = event.get(b"EventTypeName")
                if kind == b"InvoiceCreated" and payload["purchase_price_cents"] in self.foreign:
                    told.foreign.add(payload["purchase_price_cents"])
                elif kind == b"InvoiceCreated":
                    told.created.add(payload["purchase_price_cents"])
                elif kind == b"InvoiceDeleted":
                    told.deleted.add(payload["purchase_price_cents"])
                elif kind == b"CreditCreated":
                    told.created.add(-payload["credited_cents"])
                elif kind == b"CreditDeleted":
                    told.deleted.add(-payload["credited_cents"])
                elif kind in (b"CustomerCreated", b"AccountCreated"):
                    told.created.add(payload["name"])
                    if kind == b"CustomerCreated":
                        told.customers.add(payload["id"])
                elif kind == b"CustomerDeleted":
                    told.deleted.update(self._named.get(payload["id"], set()))
        return told

    # The end

    def settle(self) -> None:
        """End all faults, do what `status` says, and check that all is well then. Raises AssertionError."""
        self._end_the_other()
        self.come_to_rest()
        for remedy in (
            self._redrive_all,
            self._remove_groups,
            self._begin_again_if_told,
            self._rebuild_if_told,
            self._redrive_all,
        ):
            if remedy():
                self.come_to_rest()
        for report in self._reports:
            assert _is_well(report), report

    def _end_the_other(self) -> None:
        """The copy publishes all and is deleted; the other machine takes over its names at its start."""
        if not (other := self._other):
            return
        self.stop()
        self.pass_time(2 * LEASE_SECONDS)
        for line in other.lines.values():
            line.mend()
        with suppress(WrongNumber):  # the node was removed meanwhile, and another made in its place
            for _ in range(ROUNDS):
                for part in other.parts.values():
                    with suppress(redis.ConnectionError, AtWorkElsewhere, Awaited):
                        part()
                self.pass_time(1)
                if not other.status(CUSTOMERS).outbox_depth:
                    break
        self._note_strangers(other.directory)
        other.stop()
        self._other = None
        self.pass_time(2 * LEASE_SECONDS)
        self.note_losses()

    def _note_strangers(self, directory: Path) -> None:
        """If the customers.db there is no copy of the one that stays, the records that only it has are lost.

        The one here was begun anew, as Redis had lost all. Revenue counts; the customers are in no list.
        """
        if not (self.data / customers.FILE).exists():
            return  # it is made again from the stream
        with self._opened(CUSTOMERS, directory) as theirs, self._opened(CUSTOMERS, self.data) as ours:
            if not own_sources(theirs) & own_sources(ours):
                self.doubtful |= self._recorded([directory]) - self._recorded([self.data])

    def come_to_rest(self) -> None:
        """Start what doesn't run, and let all take turns until nothing changes. Raises AssertionError."""
        self._insist_on_a_start()
        for line in [line for tally in self._nodes() for line in tally.lines.values()]:
            line.mend()
        before: list[StatusReport] = []
        for turn in range(ROUNDS):
            try:
                for name, part in [each for tally in self._nodes() for each in tally.parts.items()]:
                    self._work_off(part, 1 if name.endswith("relay") else 2)
            except WrongNumber as error:
                self._is_refused(error)
                self._insist_on_a_start()
            self.pass_time(ROUND_SECONDS)
            if turn >= 2:
                self._reports = self._look()
                reports = [*map(_what_lasts, self._reports)]
                is_done = turn >= LATER or all(map(_is_well, reports))
                if is_done and reports == before and not any(each.redis.pending for each in reports):
                    return
                before = reports
        raise AssertionError(f"it does not settle: {before}")

    def _insist_on_a_start(self) -> None:
        for _ in range(5):
            self.start()
            self.somebody_mends()
        assert self.tally, self.refusal

    def _work_off(self, part: Callable[[], bool], least: int) -> None:
        """Let a part take turns until it finds nothing to do, at most three: then it is the others' turn.

        `least` is two for a consumer: one turn looks after leftovers of others, the next reads.
        """
        for turn in range(1, 4):
            more = False
            with suppress(
                redis.ConnectionError, AtWorkElsewhere, Awaited
            ):  # if the line was broken before this turn
                more = part()
            if turn >= least and not more:
                return

    def _look(self) -> list[StatusReport]:
        return [tally.status(service) for tally in self._nodes() for service in SERVICES.values()]

    def _redrive_all(self) -> bool:
        if not self.stream().dead_letters():
            return False
        self.dead_letters_are_discarded()
        self.dead_letters_are_redriven()
        return True

    def _told_people(self) -> list[str]:
        return [text for report in self._reports for text in (*report.reasons, *report.notes)]

    def _remove_groups(self) -> bool:
        assert self.tally
        told = re.findall("`groups remove (.*?)`", " ".join(self._told_people()))
        for group in told:
            assert group not in self._own_sources(), f"{group} is in use"
            Groups(self.stream()).remove(group)
        return bool(told)

    def _own_sources(self) -> set[str]:
        assert self.tally
        every = [database for tally in self._nodes() for database in tally.databases.values()]
        return {source for database in every for source in own_sources(database)}

    def _begin_again_if_told(self) -> bool:
        """Begin node 0's accounts.db again with a copy of node 1's, which has what it lacks."""
        if not any("at node 1, and `join` here" in text for text in self._told_people()):
            return False
        self.rebuild_accounts(self._node_1)
        self.stop()
        self.remove("accounts")
        joining.join(self.data, self._copied(self._node_1), 0)
        return True

    def _rebuild_if_told(self) -> bool:
        told = self._told_people()
        remedies = ("missing for good", "are nowhere any more", "`rebuild accounts` leaves it out")
        if not any(each in text for text in told for each in remedies):
            return False
        if "with `join`" in self.rebuild_accounts() or any("`join` here" in text for text in told):
            self._join_again()
        return True

    def _join_again(self) -> None:
        """Replace node 1's accounts.db with a copy of node 0's."""
        self.another_node_is_killed()
        copy = self._copied(self.data)
        for suffix in ("", "-wal", "-shm"):
            (self._node_1 / f"{accounts.FILE}{suffix}").unlink(missing_ok=True)
        joining.join(self._node_1, copy, 1)

    def _copied(self, directory: Path) -> Path:
        copy = self._directory / f"copy-{self._tag()}"
        copy_database(directory / accounts.FILE, copy, lambda done: None)
        return copy

    def compare(self) -> None:
        """Check that each accepted thing is recorded once, and shown as recorded. Raises AssertionError."""
        stores = [tally.customers for tally in self._nodes()]
        every = [each for store in stores for each in store.customers(CustomerQuery(limit=100_000))]
        customers = {each.id: each for each in every}
        assert len(customers) == len(every), "a number was given twice"
        invoices = [each for store in stores for each in store.invoices(ListQuery(limit=100_000))]
        credits = [each for store in stores for each in store.credits.page(ListQuery(limit=100_000))]
        self._compare_ledger(
            Counter(each.name for each in customers.values()),
            Counter(each.purchase_price_cents % MARK for each in invoices)
            + Counter(-each.credited_cents for each in credits),
        )
        for invoice in invoices:
            given = self.amounts[invoice.purchase_price_cents % MARK]
            assert invoice.purchase_price_cents in given, f"{invoice} had {given}"
        revenue: Counter[int] = Counter()
        for invoice in invoices:
            revenue[int(invoice.customer_id)] += invoice.purchase_price_cents
        for credit in credits:
            revenue[int(credit.customer_id)] -= credit.credited_cents
        expected = {int(id): (int(each.account_id), revenue[int(id)]) for id, each in customers.items()}
        for tally in self._nodes():
            notes = " ".join(tally.status(ACCOUNTS).notes)
            lacks_names = re.search("events of accounts@.* were never read here", notes) is not None
            self._compare_shown(tally.accounts, customers, expected, lacks_names)
            self._compare_histories(tally.accounts)

    def _compare_shown(
        self,
        store: Accounts,
        customers: dict[Id, Customer],
        expected: dict[int, tuple[int, int]],
        lacks_names: bool,
    ) -> None:
        """Check that a node's accounts show all nodes' records, and all names unless it lacks some."""
        shown = {
            int(each.customer_id): (account, each.total_revenue_cents)
            for account in {1, 2, 3} | {int(each.account_id) for each in customers.values()}
            for each in store.customers_of(account)
            if each.customer_id in customers or each.name not in self.doubtful  # they may still count there
        }
        self._compare_months(store, shown)
        self._compare_foreign(store, shown)
        for cents, customer in self.foreign.items():
            if customer in shown:
                home, revenue = shown[customer]
                shown[customer] = (home, revenue - cents * _count(cents, revenue))
        opened = {account.id: account.name for account in store.accounts(-1, 1000)}
        for each in customers.values():
            account = self.names[each.name]
            if account not in self.doubtful and not lacks_names:
                assert account in ("", opened.get(each.account_id, "")), f"{each} is somebody else's"
        if self._given_up:
            shown = {id: figures for id, figures in shown.items() if id in expected}
        assert shown == expected, f"shown {shown}, recorded {expected}"

    def _compare_foreign(self, store: Accounts, shown: Collection[int]) -> None:
        """Check that each invoice of another program is counted once. `shown`: the customers we show."""
        rows = revenue_by_customer(store.database)
        for cents, customer in self.foreign.items():
            count = _count(cents, rows.get(customer))
            is_ours = customer != FOREIGN + cents - FOREIGN_CENTS
            is_deleted = is_ours and customer not in shown
            well = (
                count == 1
                or cents in self.forgotten
                or (not count and (cents in self.doubtful or is_deleted))
            )
            assert well, f"{cents} of {customer} is counted {count} times"
            assert is_ours or rows.get(customer, 0) == count * cents, f"{customer}: {rows[customer]}"

    def _compare_histories(self, store: Accounts) -> None:
        """Check that each account's history tells each change once, and ends with the account as it is."""
        for account in store.accounts(-1, 1000):
            told = store.history(account.id)
            assert told[-1].after == to_builtins(account, enc_hook=str), told
            every = [(each.event, each.at, str(each.after)) for each in told]
            assert len(every) == len({*every}), told

    def _compare_months(self, store: Accounts, shown: dict[int, tuple[int, int]]) -> None:
        """Check that each customer's months add up to its revenue, and an account's months to its own."""
        database = store.database
        for account in store.accounts(-1, 1000):
            every = Months(database).of_account(account.id)
            theirs = {id: cents for id, (home, cents) in shown.items() if home == account.id}
            months = {id: Months(database).of_customer(account.id, id) for id in theirs}
            for id, cents in theirs.items():
                assert sum(each.cents for each in months[id]) == cents, f"{id}: {months[id]}"
            if len(theirs) == len(store.customers_of(account.id)):
                summed = Counter[int | None]()
                for each in chain.from_iterable(months.values()):
                    summed[each.month] += each.cents
                assert {each.month: each.cents for each in every if each.cents} == {
                    month: cents for month, cents in summed.items() if cents
                }, account

    def _compare_ledger(self, names: Counter[str], cents: Counter[int]) -> None:
        for name in self.names:
            if name not in self.doubtful:
                assert names[name] == (name not in self.gone), f"customer {name}"
            assert names[name] <= 1, f"customer {name} is there twice"
        for each in self.invoices.values():
            if each.cents not in self.doubtful and each.customer not in self.doubtful:
                is_gone = each.cents in self.gone or each.customer in self.gone
                assert cents[each.cents] == (not is_gone), f"invoice {each.cents} of {each.customer}"
            assert cents[each.cents] <= 1, f"invoice {each.cents} is there twice"


CLIENTS = {
    "open_account": 1.0,
    "change_account": 0.5,
    "create_customers": 3.0,
    "create_invoices": 8.0,
    "change_invoice": 2.0,
    "move_customer": 1.0,
    "create_credit": 2.0,
    "delete_credit": 0.5,
    "delete_invoice": 1.0,
    "delete_customer": 0.5,
}
TURNS = {"part_turns": 10.0, "parts_turn_at_once": 3.0, "all_turn": 4.0, "moments_pass": 2.0}
MEANWHILE = CLIENTS | {"moments_pass": 10.0}
UPKEEP = {
    "tally_is_started": 4.0,
    "somebody_mends": 4.0,
    "redis_is_saved": 2.0,
    "a_copy_is_made": 2.0,
    "dead_letters_are_redriven": 0.5,
    "dead_letters_are_discarded": 0.5,
}
FAULTS = {
    "part_is_killed": 1.0,
    "part_is_killed_at_its_work": 3.0,
    "tally_is_killed": 1.0,
    "days_pass": 1.0,
    "another_program_publishes": 1.0,
    "another_program_publishes_poison": 0.5,
    "another_program_trims": 1.0,
    "another_program_deletes_entries": 1.0,
    "a_group_is_set_to_the_end": 1.0,
    "a_group_is_destroyed": 1.0,
    "a_line_breaks": 2.0,
    "redis_falls_back": 1.0,
    "redis_falls_back_a_little": 1.0,
    "redis_loses_everything": 0.7,
    "the_stream_is_deleted": 0.7,
    "a_copy_is_put_back": 2.0,
    "a_database_is_lost": 0.7,
    "a_second_tally_is_started": 0.5,
    "the_machine_is_copied": 1.0,
}
SECOND = "another_node_begins"
FAULTS |= {SECOND: 2.0, "another_node_is_killed": 1.0}
LOSE = {
    "another_program_trims",
    "another_program_deletes_entries",
    "redis_falls_back",
    "redis_falls_back_a_little",
    "redis_loses_everything",
    "the_stream_is_deleted",
    "a_copy_is_put_back",
    "a_database_is_lost",
    SECOND,
}
"""The steps after which something may be in no place any more, or not where it is to be shown."""

Step = tuple[str, int]


def steps_of(seed: int) -> list[Step]:
    """A history: a few rounds of requests, of turns of the processes, of upkeep, and of faults.

    Its kinds of faults are random, too, and few: many kinds at once would hide the effect of one.
    """
    choose = random.Random(seed)
    names = [*choose.sample([*FAULTS], choose.randint(1, 6))]
    faults = {name: FAULTS[name] for name in names}
    steps: list[str] = []
    for _ in range(choose.randint(2, 8)):
        for kinds, most in ((CLIENTS, 4), (TURNS, 8), (UPKEEP, 2), (faults, 2), (TURNS, 2)):
            steps += choose.choices([*kinds], [*kinds.values()], k=choose.randint(0, most))
        if choose.random() < 0.4:
            steps += ["all_turn"] * 3  # it comes to rest, nearly
    return [(name, choose.getrandbits(32)) for name in steps]


def run(seed: int, steps: list[Step], directory: Path) -> None:
    """Run a history to its end. Raises AssertionError, or the error of a step."""
    world = World(seed, directory)
    try:
        world.start()
        for name, drawn in steps:
            world.random.seed(drawn)
            with suppress(NotFound, NotInPlace):
                getattr(world, name)()
            world.pass_time(0.01)
            if name in LOSE or world.is_down:
                world.note_losses()
        world.settle()
        world.compare()
    finally:
        world.end()


def shortest(seed: int, steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Leave out steps while the history still fails; return the shortest one found."""
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if fails(fewer):
                steps = fewer
            else:
                start += size
        size //= 2
    return steps
