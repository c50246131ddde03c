"""The list of revoked tokens in a data directory."""

from pathlib import Path

from tally.store.revocations import Revocations


def test_of_two_revocations_the_later_one_counts_in_whatever_order_they_come(tmp_path: Path) -> None:
    """The earlier one may come from another node, after the later one was noted here."""
    own = Revocations(tmp_path)
    for at in (100, 50):
        own.add(1, "bob", at)
    assert own.cover(1, "bob", 100)
    assert not own.cover(1, "bob", 101)
    assert [each.at for each in own.all()] == [100]
