"""Choosing by account takes a customer's invoices and credits only while the account has that customer."""

from tally.commands.event_choice import Choice
from tally.events import Id
from tally.store.stream import Entry


def _wanted(choice: Choice, *events: tuple[str, str]) -> list[bool]:
    return [
        choice.wants(Entry(b"1-0", {b"EventTypeName": name.encode(), b"Payload": payload.encode()}))
        for name, payload in events
    ]


def test_a_customer_that_moves_takes_its_later_invoices_along() -> None:
    events = (
        ("CustomerCreated", '{"id":"7","account_id":"1"}'),
        ("InvoiceCreated", '{"id":"1","customer_id":"7"}'),
        ("CustomerUpdated", '{"id":"7","account_id":"2"}'),
        ("CreditCreated", '{"id":"1","customer_id":"7"}'),
        ("CustomerDeleted", '{"id":"7","account_id":"2"}'),
    )
    assert _wanted(Choice(account=Id(1)), *events) == [True, True, True, False, False]
    assert _wanted(Choice(account=Id(2), customers={7}), *events) == [False, False, True, True, True]


def test_what_happened_before_the_stream_tells_of_a_customer_is_of_the_account_that_has_it_now() -> None:
    invoice = ("InvoiceCreated", '{"id":"1","customer_id":"7"}')
    assert _wanted(Choice(account=Id(1), customers={7}), invoice) == [True]
    assert _wanted(Choice(account=Id(1), customers={8}), invoice) == [False]


def test_what_can_not_be_read_concerns_nobody() -> None:
    broken = [("InvoiceCreated", each) for each in ("", "[]", '{"customer_id":7}', '{"customer_id":"x"}')]
    assert not any(_wanted(Choice(customer=Id(7)), *broken))
    assert not any(_wanted(Choice(account=Id(7), customers={7}), *broken))
