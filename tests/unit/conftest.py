"""Fixtures of the unit tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tally.store.accounts import Accounts, open_database


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    """The accounts of an empty accounts.db."""
    accounts = Accounts(open_database(tmp_path))
    yield accounts
    accounts.database.close()
