"""A primary, its standby and another node on one Redis, with clients and faults; see world.

No machine is ever lost. So at the end all accepted changes must be there, once. Each machine has a clock of
its own, and so has Redis: they run equally fast, and differ by as much as `check` allows.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import redis

from support import at_once
from support.redis_double import RedisDouble
from support.world import CONSUMERS, KEY, MARK, RETENTION_DAYS, ROUNDS, Tally, relay_of
from tally.actors.housekeeper import Housekeeper
from tally.actors.services import ACCOUNTS, CUSTOMERS, SERVICES, Service
from tally.events import Id
from tally.http.status import StatusReport
from tally.recovery import first_start, joining
from tally.recovery.following import Follower
from tally.recovery.handing_over import TakingOver, go_on, hand_over
from tally.recovery.standing import Standing
from tally.store import accounts, customers, nodes
from tally.store.accounts import AccountChange, NewAccount
from tally.store.cause import Cause
from tally.store.copying import copy_database
from tally.store.customer_list import CustomerQuery
from tally.store.errors import InvoiceCredited, NotFound, OverCredited, StoreError, UnknownReference
from tally.store.idempotency import Answer, IdempotencyKeys, KeyedRequest, made, made_many
from tally.store.ids import node_of
from tally.store.incarnations import own_sources
from tally.store.listing import ListQuery
from tally.store.membership import Candidate, Membership, Replaced, promote
from tally.store.records import (
    Credit,
    Customer,
    CustomerChange,
    Invoice,
    InvoiceChange,
    NewCredit,
    NewCustomer,
    NewInvoice,
)
from tally.store.stream import EventStream
from tally.store.write_permission import Refusal

OTHER = 2  # the place of the other node, whose number is 1; the others are node 0's primary and standby
FILES = (customers.FILE, accounts.FILE)
CLOCKS_DIFFER = 50.0  # seconds, from the model's clock


class Machine(Tally):
    """A Tally that is the primary or its standby, as Redis says; its relays work as in a family."""

    def __init__(self, pair: "Pair", directory: Path, number: int) -> None:
        super().__init__(pair, directory, number=number)  # type: ignore[arg-type]
        self._ahead = pair.random.uniform(-CLOCKS_DIFFER, CLOCKS_DIFFER)

    def _wall(self) -> float:
        return self._world.wall() + self._ahead

    def start(self) -> None:
        """Start the relays, then the rest."""
        for service in SERVICES.values():
            self.start_relay(service)
        for service in SERVICES.values():
            for name in CONSUMERS[service.name]:
                self.start_consumer(service, name)
        self.customers = customers.Customers(self._open(CUSTOMERS, "customers-http"))
        self.accounts = accounts.Accounts(self._open(ACCOUNTS, "accounts-http"))
        self._keys = IdempotencyKeys(self.customers.database, self._wall)

    def start_relay(self, service: Service) -> None:
        """Start a relay, or a new one in its place; see Family."""
        name = f"{service.name}-relay"
        self._stream(name), self._open(service, name)
        self.parts[name] = self._begun(service, name)

    def _begun(self, service: Service, name: str) -> Callable[[], bool]:
        """The relay's step function, chosen by the present state of Redis."""
        database = self.databases[name]
        stream = EventStream(self._world.redis.client(self.lines[name]), KEY)
        permission, store = self._permissions[service.name], service.store(database)
        membership = Membership(database, stream, f"http://{self.directory.name}", wait_seconds=0)
        standing = Standing(store, stream, permission=permission, membership=membership)
        if nodes.follows(database):
            permission.refuse(Refusal.STANDBY)

        def follow() -> None:
            follower = Follower(store, stream)

            def step() -> bool:
                if not follower.step():
                    follower.look()
                hand_over(database, stream)
                if membership.take() is None:
                    follower.catch_up()
                    go_on(store, stream)
                    self.parts[name] = self._begun(service, name)
                return True

            self.parts[name] = step

        def publish() -> None:
            relay = relay_of(service, database, stream, standing, self._world.clock, membership)
            housekeeper = Housekeeper(
                database,
                stream,
                timedelta(days=RETENTION_DAYS),
                self.groups,
                self._world.clock,
                self._wall,
            )
            taking_over, answering = TakingOver(store, stream), service.answering(database, stream)

            def step() -> bool:
                try:
                    if not relay.step():
                        relay.look_again()
                    housekeeper.step()
                    standing.take_number()
                    if taking_over.step():
                        relay.look_again()
                    answering.step()
                except Replaced:
                    follow()
                return True

            self.parts[name] = step

        def begin() -> bool:
            try:
                standing.take_number()
            except Replaced:
                follow()
            else:
                publish()
            return True

        try:
            begin()
        except (redis.RedisError, StoreError):
            if nodes.follows(database):
                return begin  # meanwhile it refuses changes
            publish()
        return self.parts[name]

    def record(self, key: str, customer: Id, cents: Sequence[int]) -> list[int] | None:
        """Record invoices, or find those with that key; None if this machine may record nothing.

        Raises UnknownReference.
        """
        store = self.customers
        if store.database.refusal():
            return None
        path = "/invoices/batch" if len(cents) > 1 else "/invoices"
        request = KeyedRequest(key, path, key.encode())
        new = [NewInvoice(customer, date(2019, 1, 6), each) for each in cents]

        def make() -> Answer:
            ids = store.create_invoices(new, Cause(None, request.request_key()))
            return made_many(ids) if len(ids) > 1 else made(path, *ids)

        with store.database.transaction():
            answer = self._keys.once(request, make)
        return [int(id) for id in re.findall(rb'"(\d+)"', answer.body)]

    @property
    def may_write(self) -> bool:
        """Whether clients may change data here."""
        return not self.customers.database.refusal()


class Pair:
    """One history, from its seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self._now = 4_000_000_000.0  # a day in the future: nothing that is kept for some time expires
        ahead = self.random.uniform(-CLOCKS_DIFFER, CLOCKS_DIFFER)
        release = self.random.choice([(6, 2), (7, 0), (8, 0)])
        self.redis = RedisDouble(lambda: int((self._now + ahead) * 1000), release)
        self._directory = directory
        self._states: list[dict[bytes, Any]] = []
        self._marks = 0
        self.accepted: dict[int, Id] = {}  # by mark, the customer
        self.credits: dict[int, Id] = {}  # those not taken back, with their customers
        self.gone_customers: set[int] = set()
        self.amounts: dict[int, set[int]] = {}
        self.ids: dict[int, int] = {}  # the ids in the answers, by mark
        self._customers: list[Id] = []
        self._unanswered: list[tuple[str, Id, list[int]]] = []
        self._asked_twice: set[int] = set()
        self.gone: set[int] = set()
        self.promotions = 0
        self._places = [directory / "first", directory / "second", directory / "other-node"]
        self._machines: list[Machine | None] = [None, None, None]
        self._begin()

    def _begin(self) -> None:
        for directory in self._places:
            directory.mkdir()
        for number, place in ((0, 0), (1, OTHER)):
            first_start.make(self._places[place], number)
            with closing(ACCOUNTS.open(self._places[place])) as database:
                nodes.assign(database, number)
            machine = self._start(place)
            with machine.customers.database.transaction():
                new = [NewCustomer("c", Id(1)) for _ in range(2)]
                self._customers += map(Id, machine.customers.create_customers(new))
        first = self._machines[0]
        assert first
        with first.accounts.database.transaction():
            for name in ("one", "two"):
                first.accounts.create_account(NewAccount(name, "u"))
        for _ in range(5):
            self.all_turn()
        self._join(1)
        self._start(1)

    def _join(self, place: int) -> None:
        """Replace a standby's files with a copy of the other machine's, which has published all."""
        copies = self._directory / f"copies-{self.random.getrandbits(32):x}"
        copies.mkdir()
        for file in FILES:
            copy_database(self._places[1 - place] / file, copies / file, lambda done: None)
            for suffix in ("", "-wal", "-shm"):
                (self._places[place] / f"{file}{suffix}").unlink(missing_ok=True)
        joining.follow(self._places[place], copies, 0)

    def _start(self, place: int) -> Machine:
        machine = Machine(self, self._places[place], int(place == OTHER))
        self._machines[place] = machine
        machine.start()
        return machine

    def end(self) -> None:
        """Stop all machines."""
        for machine in self._running():
            machine.stop()

    def clock(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now

    def stream(self) -> EventStream:
        return EventStream(self.redis.client(), KEY)

    def start_again(self) -> None:
        """Stop all machines and start them, and let them see how they stand."""
        for place, machine in enumerate(self._machines):
            if machine:
                machine.stop()
                self._start(place)
        self._come_to_rest()

    def names(self) -> list[set[str]]:
        """All names that each running machine's databases ever had."""
        return [
            {name for database in machine.databases.values() for name in own_sources(database)}
            for machine in self._running()
        ]

    def _running(self) -> list[Machine]:
        return [machine for machine in self._machines if machine]

    def _one(self, number: int | None = None) -> Machine | None:
        """A running machine of that node, or of any, that accepts changes."""
        running = [each for each in self._running() if number in (None, each.number)]
        found = [machine for machine in running if machine.may_write]
        return self.random.choice(found) if found else None

    # Clients

    def record(self) -> None:
        """Send a request for one invoice, or now and then for three together."""
        marks = [self._marks + 1 + each for each in range(3 if self._marks % 3 == 2 else 1)]
        self._marks = marks[-1]
        self._unanswered.append((f"key-{marks[0]}", self.random.choice(self._customers), marks))
        self.ask_again()

    def ask_again(self) -> None:
        """Repeat a request that was not answered; this one may not be answered either."""
        if not self._unanswered:
            return
        asked = self.random.choice(self._unanswered)
        key, customer, marks = asked
        if not (machine := self._one(node_of(customer))):
            return
        try:
            ids = machine.record(key, customer, marks)
        except UnknownReference:
            self._unanswered.remove(asked)
            return
        if ids is not None:
            for mark in marks:
                self.accepted[mark] = customer
                self.amounts.setdefault(mark, {mark})
            if self.random.random() < 0.7:
                self._unanswered.remove(asked)
                self.ids.update(zip(marks, ids, strict=True))
            else:
                self._asked_twice.update(marks)

    def change(self) -> None:
        if (machine := self._one()) and (known := machine.customers.invoices(ListQuery(limit=1000))):
            invoice = self.random.choice(known)
            mark = invoice.purchase_price_cents % MARK
            cents = mark + MARK * self.random.randint(1, 10**4)
            with suppress(OverCredited), machine.customers.database.transaction():
                machine.customers.change_invoice(invoice.id, InvoiceChange(purchase_price_cents=cents))
                self.amounts[mark].add(cents)

    def delete(self) -> None:
        if (machine := self._one()) and (known := machine.customers.invoices(ListQuery(limit=1000))):
            invoice = self.random.choice(known)
            with suppress(InvoiceCredited), machine.customers.database.transaction():
                machine.customers.delete_invoice(invoice.id)
                self.gone.add(invoice.purchase_price_cents % MARK)

    def credit(self) -> None:
        if (machine := self._one()) and (known := machine.customers.invoices(ListQuery(limit=1000))):
            invoice = self.random.choice(known)
            new = NewCredit(invoice.customer_id, date(2019, 2, 1), 1, invoice.id)
            with suppress(OverCredited), machine.customers.database.transaction():
                [id] = machine.customers.credits.create([new])
                self.credits[id] = invoice.customer_id

    def take_back(self) -> None:
        if (machine := self._one()) and (known := machine.customers.credits.page(ListQuery(limit=1000))):
            credit = self.random.choice(known)
            with machine.customers.database.transaction():
                machine.customers.credits.delete(credit.id)
                self.credits.pop(credit.id, None)

    def rename(self) -> None:
        self._change_a_customer(name=f"c{self.random.randint(1, 9)}")

    def move(self) -> None:
        self._change_a_customer(account_id=Id(self.random.randint(1, 2)))

    def _change_a_customer(self, **change: Any) -> None:
        if machine := self._one():
            customer = self.random.choice([id for id in self._customers if node_of(id) == machine.number])
            with machine.customers.database.transaction():
                machine.customers.change_customer(customer, CustomerChange(**change))

    def create_customer(self) -> None:
        if machine := self._one():
            with machine.customers.database.transaction():
                self._customers += machine.customers.create_customers([NewCustomer("n", Id(1))])

    def delete_customer(self) -> None:
        if machine := self._one():
            customer = self.random.choice([id for id in self._customers if node_of(id) == machine.number])
            with machine.customers.database.transaction():
                machine.customers.delete_customer(customer)
                self.gone_customers.add(customer)

    def change_account(self) -> None:
        machine = self._one(0)
        if machine and not machine.accounts.database.refusal():
            with machine.accounts.database.transaction():
                change = AccountChange(name=f"a{self.random.randint(1, 9)}")
                account = self.random.choice(machine.accounts.accounts(-1, 10))
                machine.accounts.change_account(account.id, change)

    # Turns, and time

    def part_turns(self) -> None:
        if running := self._running():
            machine = self.random.choice(running)
            self._turn(machine, self.random.choice([*machine.parts]))

    def all_turn(self) -> None:
        for machine in self._running():
            for name in [*machine.parts]:
                self._turn(machine, name)

    def a_machine_turns(self) -> None:
        """All parts of one machine take their turns, while the others stand still."""
        if running := self._running():
            machine = self.random.choice(running)
            for name in [*machine.parts]:
                self._turn(machine, name)

    def parts_turn_at_once(self) -> None:
        """Some parts take turns at the same time, while clients ask, time passes, and one is promoted."""
        self._turn_at_once({each: self._begun(*each) for each in self._some_parts(2)})

    def _some_parts(self, least: int) -> list[tuple[Machine, str]]:
        every = [(machine, name) for machine in self._running() for name in machine.parts]
        return self.random.sample(every, min(len(every), self.random.randint(least, 5)))

    def _turn_at_once(self, turns: Mapping[tuple[Machine, str], at_once.Turn]) -> None:
        for machine, name in at_once.take(turns, self.random, self._meanwhile):
            self._end_turn(machine, name)

    def _begun(self, machine: Machine, name: str, lives: float = math.inf) -> at_once.Turn:
        times = self.random.randint(1, 3)
        return at_once.Turn(partial(self._outcome, machine, name, times), machine.databases[name], lives)

    def _meanwhile(self) -> None:
        (happens,) = self.random.choices([*MEANWHILE], [*MEANWHILE.values()])
        with suppress(NotFound):
            getattr(self, happens)()

    def _turn(self, machine: Machine, name: str) -> None:
        if self._outcome(machine, name):
            self._end_turn(machine, name)
        self._now += 0.01

    def _outcome(self, machine: Machine, name: str, times: int = 1) -> Exception | None:
        """Let a part take turns, up to its first error, which is answered."""
        try:
            for _ in range(times):
                machine.parts[name]()
        except (redis.RedisError, StoreError) as error:
            return error
        return None

    def _end_turn(self, machine: Machine, name: str) -> None:
        """Some processes end with their error: then others take their places."""
        if self.random.random() < 0.3:
            machine.replace(name)

    def moments_pass(self) -> None:
        self._now += self.random.uniform(0.001, 8)

    # Faults

    def a_standby_is_promoted(self) -> None:
        found = []
        if not self._running():
            return
        machine = self.random.choice(self._running())
        for service in SERVICES.values():
            database = machine.databases[f"{service.name}-http"]
            if nodes.follows(database):
                with suppress(StoreError):
                    Membership(database, self.stream(), f"http://{machine.directory.name}").take()
                found.append(Candidate(database.source, ""))
        if found:
            self.promotions += 1
            promote(self.stream(), 0, found)

    def a_machine_is_killed(self) -> None:
        place = self.random.randrange(len(self._places))
        if machine := self._machines[place]:
            machine.stop()
            self._machines[place] = None

    def machines_start(self) -> None:
        for place, machine in enumerate(self._machines):
            if machine is None:
                self._start(place)

    def a_part_is_killed(self) -> None:
        if running := self._running():
            machine = self.random.choice(running)
            machine.replace(self.random.choice([*machine.parts]))

    def a_part_is_killed_at_its_work(self) -> None:
        """It is killed at any command or transaction, while others take turns or none."""
        if chosen := self._some_parts(1):
            (machine, name), *others = chosen
            killed = self._begun(machine, name, self.random.randint(0, 40))
            self._turn_at_once({(machine, name): killed} | {each: self._begun(*each) for each in others})
            machine.replace(name)

    def a_line_breaks(self) -> None:
        if running := self._running():
            machine = self.random.choice(running)
            line = machine.lines[self.random.choice([*machine.parts])]
            line.break_at(self.random.choice(["before", "after"]), self.random.randint(0, 4))

    def redis_is_saved(self) -> None:
        self._states.append(self.redis.state())

    def redis_falls_back(self) -> None:
        if self._states:
            self.redis.go_back(self.random.choice(self._states))
            for machine in self._running():
                for line in machine.lines.values():
                    line.break_at("before", 0)

    def redis_loses_everything(self) -> None:
        self.redis.client().flushall()

    # The end

    def settle(self) -> None:
        """End all faults, and check that all is well then. Raises AssertionError."""
        self.machines_start()
        self._come_to_rest()
        while self._unanswered:
            self.ask_again()
        self._come_to_rest()
        for report in self._reports():
            assert report.status == "ok", (report.service, report.reasons)
            assert report.outbox_depth == 0, report
            assert not any((report.redis.lag or {}).values()), report.redis.lag

    def _come_to_rest(self) -> None:
        for machine in self._running():
            for line in machine.lines.values():
                line.mend()
        before: object = None
        for turn in range(ROUNDS):
            for _ in range(3):
                self.all_turn()
            self._now += 15
            told = [
                (report.outbox_depth, report.redis.lag, report.redis.pending, report.standby)
                for report in self._reports()
            ]
            if turn >= 4 and told == before and not any(pending for _, _, pending, _ in told):
                return
            before = told
        raise AssertionError(f"it does not settle: {before}")

    def _reports(self) -> list[StatusReport]:
        return [machine.status(service) for machine in self._running() for service in SERVICES.values()]

    def compare(self) -> None:
        """Check that all accepted changes are there once, and shown everywhere. Raises AssertionError."""
        there: dict[int, int] = {}
        expected: dict[int, tuple[int, str, int]] = {}  # by customer: its account, name and revenue
        credited: set[int] = set()
        for number in (0, 1):
            machines = [machine for machine in self._running() if machine.number == number]
            primaries = [machine for machine in machines if machine.may_write]
            assert len(primaries) == 1, f"{len(primaries)} primaries of node {number}"
            every, invoices, credits = recorded = self._recorded(primaries[0])
            for machine in machines:
                assert self._recorded(machine) == recorded, machine.directory
            revenue: Counter[int] = Counter()
            for invoice in invoices:
                revenue[invoice.customer_id] += invoice.purchase_price_cents
            for credit in credits:
                revenue[credit.customer_id] -= credit.credited_cents
            there |= {int(each.id): each.purchase_price_cents for each in invoices}
            credited |= {each.id for each in credits}
            expected |= {each.id: (each.account_id, each.name, revenue[each.id]) for each in every}
            assert revenue.keys() <= expected.keys(), "of a customer that isn't there"
        self._compare_accepted(there, {*expected})
        assert credited <= self.credits.keys(), "a credit that was taken back is there"
        lost = {id for id, of in self.credits.items() if id not in credited and of not in self.gone_customers}
        assert not lost, f"credits {lost} are missing"
        for machine in self._running():
            shown = {
                each.customer_id: (account, each.name, each.total_revenue_cents)
                for account in (1, 2)
                for each in machine.accounts.customers_of(account)
            }
            assert shown == expected, machine.directory
        accounts = [machine.accounts.accounts(-1, 10) for machine in self._running()]
        assert all(each == accounts[0] for each in accounts), accounts

    def _compare_accepted(self, there: dict[int, int], customers: set[int]) -> None:
        """`there` has the invoices' amounts, by id."""
        marks = Counter(cents % MARK for cents in there.values())
        assert not [mark for mark, times in marks.items() if times > 1], f"twice: {marks.most_common(3)}"
        gone = self.gone | {mark for mark, of in self.accepted.items() if of in self.gone_customers}
        for mark in self.accepted:
            if mark in gone and mark not in marks:
                continue
            assert marks[mark] == 1, f"invoice {mark} is missing"
        assert {*marks} <= {*self.accepted}
        assert {*map(int, self._customers)} - customers == self.gone_customers
        for id, cents in there.items():
            assert cents in self.amounts[cents % MARK], f"invoice {id} has {cents}"
        for mark, id in self.ids.items():  # if both machines were asked, one id counts
            is_there = id in there or mark in gone or mark in self._asked_twice
            assert is_there, f"invoice {mark} was answered as {id}"

    def _recorded(self, machine: Machine) -> tuple[list[Customer], list[Invoice], list[Credit]]:
        store, every = machine.customers, ListQuery(limit=100_000)
        found = store.customers(CustomerQuery(limit=100_000))
        return found, store.invoices(every), store.credits.page(every)


CLIENTS = {  # few rows and many changes: so both machines change the same rows
    "record": 3.0,
    "ask_again": 2.0,
    "change": 5.0,
    "delete": 1.5,
    "credit": 3.0,
    "take_back": 3.0,
    "rename": 2.0,
    "move": 1.0,
    "create_customer": 0.5,
    "delete_customer": 0.3,
    "change_account": 1.0,
}
TURNS = {
    "part_turns": 8.0,
    "parts_turn_at_once": 3.0,
    "all_turn": 3.0,
    "a_machine_turns": 3.0,
    "moments_pass": 2.0,
}
MEANWHILE = CLIENTS | {"moments_pass": 10.0}
FAULTS = {
    "a_standby_is_promoted": 4.0,
    "a_machine_is_killed": 2.0,
    "machines_start": 3.0,
    "a_part_is_killed": 1.0,
    "a_part_is_killed_at_its_work": 2.0,
    "a_line_breaks": 2.0,
    "redis_is_saved": 3.0,
    "redis_falls_back": 3.0,
    "redis_loses_everything": 0.5,
}


UNNOTICED = {
    "a_part_is_killed": 10.0,
    "a_part_is_killed_at_its_work": 5.0,
    "a_line_breaks": 2.0,
    "redis_loses_everything": 0.3,
}
"""Faults after which a machine that goes on has the newest events all the same."""


def unnoticed_steps_of(seed: int) -> list[tuple[str, int]]:
    """A history without another fault than these."""
    choose, kinds = random.Random(seed), CLIENTS | TURNS | UNNOTICED
    steps = choose.choices([*kinds], [*kinds.values()], k=choose.randint(10, 60))
    return [(name, choose.getrandbits(32)) for name in steps]


def run_under_the_same_names(seed: int, steps: list[tuple[str, int]], directory: Path) -> Pair:
    """Like `run`, with machines that have seen that they are the newest; no database may begin a name."""
    return run(seed, steps, directory, may_begin=False)


def steps_of(seed: int) -> list[tuple[str, int]]:
    """A history: rounds of requests, turns and faults. Its kinds of faults are random, too."""
    choose = random.Random(seed)
    faults = {name: FAULTS[name] for name in choose.sample([*FAULTS], choose.randint(1, len(FAULTS)))}
    faults["a_standby_is_promoted"] = FAULTS["a_standby_is_promoted"]
    steps: list[str] = []
    for _ in range(choose.randint(2, 8)):
        for kinds, most in ((CLIENTS, 5), (TURNS, 8), (faults, 2), (TURNS, 3)):
            steps += choose.choices([*kinds], [*kinds.values()], k=choose.randint(0, most))
        if choose.random() < 0.3:
            steps += ["all_turn"] * 3
    return [(name, choose.getrandbits(32)) for name in steps]


def run(seed: int, steps: list[tuple[str, int]], directory: Path, may_begin: bool = True) -> Pair:
    """Run a history to its end. Raises AssertionError, or the error of a step.

    `may_begin` tells whether databases may begin new names.
    """
    pair = Pair(seed, directory)
    try:
        if not may_begin:
            pair.start_again()
        before = pair.names()
        for name, drawn in steps:
            pair.random.seed(drawn)
            with suppress(NotFound):
                getattr(pair, name)()
        pair.settle()
        pair.compare()
        assert may_begin or pair.names() == before
    finally:
        pair.end()
    return pair
