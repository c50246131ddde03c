"""`rebuild accounts` reads customers.db, and never makes one."""

from pathlib import Path

import pytest

from support.redis_double import RedisDouble
from tally.recovery.rebuilding import Rebuilding
from tally.store import customers
from tally.store.errors import StoreError
from tally.store.stream import EventStream


def test_an_emptied_customers_db_is_told_and_stays_as_it_is(tmp_path: Path) -> None:
    """Made anew, it would be an empty one in a lost one's place."""
    file = tmp_path / customers.FILE
    file.touch()
    stream = EventStream(RedisDouble(lambda: 1_700_000_000_000).client(), "event-stream")
    with pytest.raises(StoreError, match="is an empty file"):
        Rebuilding(tmp_path, stream, lambda told: True)
    assert [*tmp_path.iterdir()] == [file]
    assert file.stat().st_size == 0
