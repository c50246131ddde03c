"""Two databases have published under one name: together they may break a rule."""

import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.actors.relay import Relay
from tally.events import Id
from tally.recovery.standing import Standing
from tally.store import customers, notes
from tally.store.customers import Customers
from tally.store.records import NewCredit, NewCustomer, NewInvoice
from tally.store.stream import EventStream

DAY = date(2019, 1, 6)


class Interrupted(EventStream):
    """A stream that is away once, when an older copy takes back what it lacks."""

    is_away = False

    def highest(self, source: str) -> dict[str, int]:
        if self.is_away:
            self.is_away = False
            raise InterruptedError
        return super().highest(source)


def _do(store: Customers, change: Callable[[Customers], object]) -> None:
    with store.database.transaction():
        change(store)


def _credited(cents: int) -> Callable[[Customers], object]:
    return lambda store: store.credits.create([NewCredit(Id(1), DAY, cents, Id(1))])


def _publish(store: Customers, stream: EventStream) -> None:
    relay = Relay(store.database, stream, Standing(store, stream).settle)
    relay.look_again()
    while relay.step():
        pass


@pytest.mark.parametrize(("cents", "is_told"), [(40, False), (70, True)])
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_what_breaks_a_rule_is_told(tmp_path: Path, cents: int, is_told: bool, is_interrupted: bool) -> None:
    """It was told of what an old primary hands over, and not here."""
    stream = Interrupted(RedisDouble(lambda: 1_700_000_000_000, (8, 0)).client(), "event-stream")
    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    with closing(customers.open_database(first)) as database:
        store = Customers(database)
        _do(store, lambda store: store.create_customers([NewCustomer("c", Id(1))]))
        _do(store, lambda store: store.create_invoices([NewInvoice(Id(1), DAY, 100)]))
        _publish(store, stream)
    shutil.copytree(first, copy)
    for directory, credited in ((first, 60), (copy, cents)):
        with closing(customers.open_database(directory)) as database:
            store = Customers(database)
            _do(store, _credited(credited))
            stream.is_away = is_interrupted and directory == copy
            if stream.is_away:
                with pytest.raises(InterruptedError):
                    _publish(store, stream)
            _publish(store, stream)
            assert store.credits.of_invoice(1) == 60 + (cents if directory == copy else 0)
            told = [each for each in notes.told(database) if "breaks a rule" in each]
    assert bool(told) == is_told
    if is_told:
        lines = (copy / "conflicts-customers.csv").read_text().splitlines()
        assert len(lines) == 2
        assert "its credits come to 130 cents" in lines[1]
