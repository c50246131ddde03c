"""Events that were lost, and are told again in any order, leave what there was before they were lost."""

import random
from collections import Counter
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from support.redis_double import RedisDouble
from tally.actors.relay import Relay
from tally.events import AccountCreated, Id, decode, now
from tally.recovery.lost_customers import recover
from tally.recovery.standing import Standing
from tally.store import accounts, customers
from tally.store.accounts import Accounts
from tally.store.customers import Customers
from tally.store.errors import InvoiceCredited, OverCredited
from tally.store.incarnations import begin
from tally.store.lacking import told
from tally.store.months import Months
from tally.store.outbox import Outbox
from tally.store.records import CustomerChange, InvoiceChange, NewCredit, NewCustomer, NewInvoice
from tally.store.stream import EventStream

Shown = tuple[int, str, dict[int | None, int]]
"""A customer's account, its name, and its revenue by month."""

KEY = "event-stream"
DAY = date(2019, 1, 6)


class History:
    """A customers.db, and the stream that it publishes to."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._random = random.Random(seed)
        self._directory = directory
        self._redis = RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client()
        self._stream = EventStream(self._redis, KEY)
        self.store = Customers(customers.open_database(directory))

    def record(self) -> None:
        """Record, change, credit and delete under one to three names, and publish it all."""
        for number in range(self._random.randint(1, 3)):
            if number:
                with self.store.database.transaction():
                    begin(self.store.database, self.store.outbox.last())
                self.store.outbox = Outbox(self.store.database)
            self._some(20)

    def record_on_two_sides(self) -> list[Any]:
        """Record some under one name that is lost with the file, then others after a copy was put back.

        Returns the fields of the lost entries. Both sides may change the same invoices.
        """
        self.store.database.close()
        file = self._directory / customers.FILE
        copy = file.read_bytes()
        known = {id for id, _ in self._entries().values()}
        self._open()
        self._some(12)
        lost = [(id, fields) for id, fields in self._entries().values() if id not in known]
        self.store.database.close()
        file.write_bytes(copy)
        for id, _ in lost:
            self._redis.xdel(KEY, id)
        self._open()
        Standing(self.store, self._stream).settle()
        self.store.outbox = Outbox(self.store.database)
        self._some(12)
        return [fields for _, fields in lost]

    def _open(self) -> None:
        self.store = Customers(customers.open_database(self._directory))

    def _some(self, most: int) -> None:
        for _ in range(self._random.randint(3, most)):
            with suppress(InvoiceCredited, OverCredited), self.store.database.transaction():
                self._one()
        self._publish()

    def _one(self) -> None:
        store, choose = self.store, self._random
        # Ids come from random blocks. The order of creation makes a seed give the same history each time.
        order = "ORDER BY created_date, id"
        every = [id for (id,) in store.database.rows(f"SELECT id FROM customer {order}")]
        invoices = store.database.rows(f"SELECT id, customer_id FROM invoice {order}")
        credits = [id for (id,) in store.database.rows(f"SELECT id FROM credit {order}")]
        cents = choose.randint(1, 999)
        if not every or choose.random() < 0.2:
            store.create_customers([NewCustomer(f"n{cents}", Id(choose.randint(1, 3)))])
        elif not invoices or choose.random() < 0.3:
            store.create_invoices([NewInvoice(Id(choose.choice(every)), DAY, cents)] * choose.randint(1, 3))
        else:
            invoice, customer = choose.choice(invoices)
            kinds = ["rename", "move", "change", "credit", "credit it", "take back", "delete it"]
            match choose.choice([*kinds, "delete customer"]):
                case "rename":
                    store.change_customer(customer, CustomerChange(name=f"m{cents}"))
                case "move":
                    store.change_customer(customer, CustomerChange(account_id=Id(choose.randint(1, 3))))
                case "change":
                    day = DAY.replace(month=choose.randint(1, 3))
                    store.change_invoice(
                        invoice, InvoiceChange(purchase_price_cents=cents, purchase_date=day)
                    )
                case "credit":
                    store.credits.create([NewCredit(Id(customer), DAY, 5)])
                case "credit it":
                    store.credits.create([NewCredit(Id(customer), DAY, 1, Id(invoice))])
                case "take back" if credits:
                    store.credits.delete(choose.choice(credits))
                case "delete it":
                    store.delete_invoice(invoice)
                case "delete customer" if choose.random() < 0.5:
                    store.delete_customer(customer)

    def _publish(self) -> None:
        relay = Relay(self.store.database, self._stream, Standing(self.store, self._stream).settle)
        relay.look_again()
        while relay.step():
            pass

    def _entries(self) -> dict[bytes, tuple[bytes, dict[Any, bytes]]]:
        entries: Any = self._redis.xrange(KEY)
        return {fields[b"EventId"]: (id, fields) for id, fields in entries}

    def lose(self, most: int) -> list[Any]:
        """Delete the file and up to `most` entries, and make the file again; return the entries' fields."""
        self.store.database.close()
        (self._directory / customers.FILE).unlink()
        entries = self._entries()
        lost = self._random.sample([*entries.values()], self._random.randint(1, min(most, len(entries) - 1)))
        for id, _ in lost:
            self._redis.xdel(KEY, id)
        recover(self._directory, self._stream, None)
        self._open()
        return [fields for _, fields in lost]

    def tell_again(self, lost: list[Any]) -> None:
        """Put the entries at the end of the stream, a few at a time, and have the database look."""
        while lost:
            count = self._random.randint(1, len(lost))
            some, lost = lost[:count], lost[count:]
            for fields in some:
                self._redis.xadd(KEY, fields)
            Standing(self.store, self._stream).settle()
        self._publish()  # it may have corrected something

    def recorded(self) -> list[Any]:
        """All customers, invoices and credits."""
        tables = ("customer", "invoice", "credit")
        return [self.store.database.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]

    def shown(self) -> dict[int, Shown]:
        """How each customer is to be shown: its invoices less its credits, by month."""
        cents = Counter[tuple[int, int]]()
        for table, amount, day, sign in (
            ("invoice", "purchase_price_cents", "purchase_date", 1),
            ("credit", "credited_cents", "credit_date", -1),
        ):
            for id, added, at in self.store.database.rows(
                f"SELECT customer_id, {amount}, {day} FROM {table}"
            ):
                cents[id, int(at[:4] + at[5:7])] += sign * added
        return {
            id: (account, name, {month: sum for (of, month), sum in cents.items() if of == id and sum})
            for id, account, name in self.store.database.rows("SELECT id, account_id, name FROM customer")
        }

    def counted(self) -> dict[int, Shown]:
        """The same, as an accounts.db has it that applied every event once."""
        database = accounts.open_database(self._directory)
        store, months = Accounts(database), Months(database)
        opened = [AccountCreated(Id(id), "a", "", "u", now()) for id in (1, 2, 3)]
        with database.transaction():
            store.apply([*opened, *(decode(fields) for _, fields in self._entries().values())])
        found = {
            int(each.customer_id): (
                account,
                each.name,
                {
                    month.month: month.cents
                    for month in months.of_customer(account, each.customer_id)
                    if month.cents
                },
            )
            for account in (1, 2, 3)
            for each in store.customers_of(account)
        }
        database.close()
        return found


@pytest.mark.parametrize("seed", [*range(60), 1987, 100134])
def test_what_was_lost_and_is_told_again_is_as_it_was(tmp_path: Path, seed: int) -> None:
    history = History(seed, tmp_path)
    history.record()
    before = history.recorded()
    lost = history.lose(most=4)
    history.tell_again(lost)
    assert told(history.store.database) == []
    assert history.recorded() == before
    assert history.counted() == history.shown()
    history.store.database.close()


@pytest.mark.parametrize("seed", [*range(30), 161, 724, 764, 1023, 1080, 200707])
def test_what_is_told_again_counts_once_beside_what_was_recorded_meanwhile(tmp_path: Path, seed: int) -> None:
    history, choose = History(seed, tmp_path), random.Random(seed)
    history.record()
    lost: list[Any] = []
    for _ in range(choose.randint(1, 3)):
        if lost and choose.random() < 0.3:
            some = choose.sample(lost, choose.randint(1, len(lost)))
            lost = [fields for fields in lost if fields not in some]
            history.tell_again(some)
        lost += history.record_on_two_sides() if choose.random() < 0.7 else history.lose(most=4)
    choose.shuffle(lost)
    history.tell_again(lost)
    assert told(history.store.database) == []
    assert history.counted() == history.shown()
    history.store.database.close()
