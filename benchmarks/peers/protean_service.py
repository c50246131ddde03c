"""Invoices by Protean: recorded with its outbox, published to Redis Streams, and counted once by a handler.

Written as Protean's guides show it: an aggregate that raises an event, SQLite for its tables and its
outbox, stream subscriptions, and a handler that notes which events it has counted.
"""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from protean import Domain, handle
from protean.exceptions import ObjectNotFoundError
from protean.fields import Identifier, Integer
from protean.server import Engine
from protean.utils.globals import current_domain

from benchmarks.entries import Invoice, invoices
from benchmarks.spent import Spent

AT_ONCE = 500
FILE = "protean.db"


def consume(directory: Path, url: str, count: int) -> Spent:
    """Record `count` invoices; return the time then spent to publish and to count them."""
    logging.disable(logging.WARNING)
    domain = _domain(directory, url)
    purchase, counted = _elements(domain)
    domain.init(traverse=False)
    with domain.domain_context():
        domain.setup_database()
        for invoice in invoices(count):
            current_domain.repository_for(purchase).add(purchase.record(invoice))
        return _serve(Engine(domain), counted, count)


def _domain(directory: Path, url: str) -> Domain:
    return Domain(
        name="Purchases",
        config={
            "event_processing": "async",
            "command_processing": "async",
            "enable_outbox": True,
            "databases": {"default": {"provider": "sqlite", "database_uri": f"sqlite:///{directory / FILE}"}},
            "brokers": {"default": {"provider": "redis", "URI": url}},
            "event_store": {"provider": "memory"},
            "outbox": {"broker": "default", "messages_per_tick": AT_ONCE, "tick_interval": 0},
            "server": {
                "default_subscription_type": "stream",
                "messages_per_tick": AT_ONCE,
                "stream_subscription": {"blocking_timeout_ms": 100, "enable_dlq": True},
            },
        },
    )


def _elements(domain: Domain) -> tuple[Any, list[str]]:
    """The aggregate, and a list that gets the id of each event when it was counted."""
    done: list[str] = []

    @domain.event(part_of="Purchase")
    class Purchased:
        id = Identifier(identifier=True)
        customer_id = Identifier(required=True)
        cents = Integer(required=True)

    @domain.aggregate
    class Purchase:
        customer_id = Identifier(required=True)
        cents = Integer(required=True)

        @classmethod
        def record(cls, invoice: Invoice) -> Any:
            told: dict[str, Any] = {"customer_id": str(invoice.customer), "cents": invoice.cents}
            purchase: Any = cls(**told)
            purchase.raise_(Purchased(**told, **_id(purchase.id)))
            return purchase

    @domain.projection
    class Customer:
        id = Identifier(identifier=True)
        revenue_cents = Integer(default=0)

    @domain.projection
    class Counted:
        id = Identifier(identifier=True)

    @domain.event_handler(part_of=Purchase)
    class Revenue:
        @handle(Purchased)
        def count(self, event: Any) -> None:
            counted, customers = map(current_domain.repository_for, (Counted, Customer))
            if _found(counted, event.id) is None:
                counted.add(Counted(**_id(event.id)))
                customer = _found(customers, event.customer_id) or Customer(**_id(event.customer_id))
                customer.revenue_cents += event.cents
                customers.add(customer)
            done.append(event.id)

    return Purchase, done


def _id(told: str) -> dict[str, Any]:
    """The keyword argument `id`, which the types of Protean do not declare."""
    return {"id": told}


def _found(repository: Any, id: str) -> Any:
    try:
        return repository.get(id)
    except ObjectNotFoundError:
        return None


def _serve(engine: Engine, counted: Iterable[str], count: int) -> Spent:
    """Run until `count` are counted, and the last handler has committed."""
    took: list[Spent] = []
    started = Spent.now()

    async def watch() -> None:
        while len(set(counted)) < count:
            await asyncio.sleep(0.01)
        took.append(Spent.since(started))
        await engine.shutdown()

    watching = engine.loop.create_task(watch())
    engine.run()
    assert watching.done()
    return took[0]
