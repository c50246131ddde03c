"""`restore` tells what the copies have."""

import random
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.commands.command_line import Failed
from tally.commands.restore import put_back
from tally.events import Id
from tally.store.customers import Customers, open_database
from tally.store.ids import begin_block
from tally.store.records import NewCustomer, NewInvoice
from tally.store.stream import EventStream


def test_the_newest_invoice_is_told_whatever_number_it_has(tmp_path: Path) -> None:
    """Under a new name a database draws its numbers at random: the newest may have a lower one."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(open_database(copy)) as database:
        store = Customers(database)
        with database.transaction():
            (customer,) = store.create_customers([NewCustomer("one", Id(1))])
        made = []
        for seed in (2, 1):
            with database.transaction():
                begin_block(database, random.Random(seed))
                made += store.create_invoices([NewInvoice(customer, date(2019, 1, 6), 1)])
        earlier, newest = map(store.invoice, made)
    assert newest.id < earlier.id
    assert newest.created_date > earlier.created_date
    asked: list[str] = []

    def refuse(told: str) -> bool:
        asked.append(told)
        return False

    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000).client(), "event-stream")
    with pytest.raises(Failed, match="not confirmed"):
        list(put_back(tmp_path / "data", copy, stream, refuse))
    assert f"2 invoices, the newest of {newest.created_date};" in asked[0]
