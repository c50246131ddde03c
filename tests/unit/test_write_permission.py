"""When a database may be written to, and under the name that it has."""

import pytest

from tally.store.errors import NotInPlace, NotPrimary, NotRenewed
from tally.store.write_permission import Refusal, WritePermission


def test_what_was_confirmed_stays_so_until_it_is_in_doubt() -> None:
    permission = WritePermission()
    assert not permission.is_confirmed()
    permission.confirm()
    permission.refuse(Refusal.NONE)
    assert permission.is_confirmed()
    permission.doubt()
    assert not permission.is_confirmed()


@pytest.mark.parametrize(
    ("why", "error"), [(Refusal.REPLACED, NotInPlace), (Refusal.STANDBY, NotPrimary)], ids=str
)
def test_while_another_is_at_work_nothing_is_written_and_after_that_it_is_in_doubt(
    why: Refusal, error: type[Exception]
) -> None:
    permission = WritePermission()
    permission.confirm()
    permission.refuse(why, "http://b")
    assert isinstance(permission.refusal(0), error)
    permission.refuse(Refusal.NONE)
    assert permission.refusal(0) is None
    assert not permission.is_confirmed()


def test_a_primary_s_address_may_be_of_any_length() -> None:
    permission = WritePermission()
    permission.refuse(Refusal.STANDBY, "http://" + "x" * 5000)
    assert "http://xxx" in str(permission.refusal(0))


def test_a_lease_that_lapsed_ends_the_permission_until_it_is_renewed() -> None:
    now = 100.0
    permission = WritePermission(failover_seconds=5, clock=lambda: now)
    permission.renew(now)
    assert permission.refusal(0) is None
    now += 5.1
    assert isinstance(permission.refusal(0), NotRenewed)
    permission.renew(now)
    assert permission.refusal(0) is None
