"""A standby begins from copies of both databases of its primary."""

from contextlib import closing
from pathlib import Path

import pytest

from tally.recovery import joining
from tally.store import accounts, customers
from tally.store.errors import StoreError


def test_of_two_copies_none_is_taken_if_one_is_damaged(tmp_path: Path) -> None:
    """Then nothing is in the way of another backup."""
    copies, data = tmp_path / "copies", tmp_path / "data"
    copies.mkdir()
    data.mkdir()
    for each in (customers, accounts):
        each.open_database(copies).close()
    whole = (copies / accounts.FILE).read_bytes()
    (copies / accounts.FILE).write_bytes(b"no database" + bytes(8192))
    with pytest.raises(StoreError, match=accounts.FILE):
        joining.follow(data, copies, 0)
    assert [*data.iterdir()] == []

    (copies / accounts.FILE).write_bytes(whole)
    assert joining.follow(data, copies, 0).keys() == {customers.FILE, accounts.FILE}
    for each in (customers, accounts):
        with closing(each.open_database(data, make=False)) as database:
            assert database.path.parent == data
