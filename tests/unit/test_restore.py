"""`restore` tells what the copies have, and leaves them as they are."""

import os
import random
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from support.disks import unavailable
from support.redis_double import RedisDouble
from tally.commands.command_line import Failed
from tally.commands.restore import put_back
from tally.events import Id
from tally.recovery import first_start
from tally.recovery.lost_customers import begin_empty
from tally.recovery.rebuilding import Rebuilding
from tally.store import accounts
from tally.store.copying import copy_database
from tally.store.customers import FILE, Customers, open_database
from tally.store.ids import begin_block
from tally.store.key_file import SIGNING_KEY
from tally.store.records import NewCustomer, NewInvoice
from tally.store.revocations import Revocations
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
        put_back(tmp_path / "data", copy, stream, refuse)
    assert f"2 invoices, the newest of {newest.created_date};" in asked[0]


@pytest.mark.parametrize("name", ["restore", "new", "rebuild"])
def test_a_backup_in_the_data_directory_stays_there_whatever_its_name(tmp_path: Path, name: str) -> None:
    """In a container, nothing else can be written to. Commands made and removed folders of these names."""
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000).client(), "event-stream")
    backup = tmp_path / name
    backup.mkdir()
    for opened in (open_database, accounts.open_database):
        opened(tmp_path).close()
        copy_database(tmp_path / opened.file, backup / opened.file, lambda _: None)
    copies = {each.name: each.read_bytes() for each in backup.iterdir()}

    assert len(put_back(tmp_path, backup, stream, lambda _: True)) == len(copies)
    with closing(Rebuilding(tmp_path, stream, lambda _: True)) as rebuilding:
        rebuilding.run()
    (tmp_path / FILE).unlink()
    first_start.make(tmp_path)
    assert {each.name: each.read_bytes() for each in backup.iterdir()} == copies


def test_what_root_makes_in_another_user_s_directory_is_that_user_s(tmp_path: Path) -> None:
    """Tally could not read it: if only root can read the list of revoked tokens, all calls end with 503."""
    if os.geteuid() != 0:
        unavailable("another user's directory", "only root can make one")
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000).client(), "event-stream")
    data, backup = tmp_path / "data", tmp_path / "backup"
    for folder in (data, backup):
        folder.mkdir()
    accounts.open_database(backup).close()
    os.chown(data, 65534, 65534)

    put_back(data, backup, stream, lambda _: True)
    begin_empty(data)
    SIGNING_KEY.load(data)
    Revocations(data).add(1, "ann", 1_700_000_000)
    made = {each.name: each.stat().st_uid for each in data.iterdir()}
    files = ["accounts.db", "customers.db", "signing.key", "revoked.json", "supervisor.lock"]
    assert made == dict.fromkeys(files, 65534)
