"""Events in the stream's form: CDNOW's purchases by date, repeated under new ids."""

import re
import socket
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import cycle, islice
from typing import NamedTuple

import redis

from benchmarks import cdnow
from benchmarks.client import Unexpected

STREAM = "event-stream"
SOURCE = "benchmark@00000000"
AT_ONCE = 500

_CREATED = "2026-11-24T03:25:01.536722Z"
_CENTS = re.compile(rb'"purchase_price_cents":(\d+)')


class Invoice(NamedTuple):
    """A future invoice: its number from 1 on, its customer, its date, and its amount."""

    id: int
    customer: int
    date: str
    cents: int

    @property
    def payload(self) -> bytes:
        """The payload of its InvoiceCreated."""
        return (
            f'{{"id":"{self.id}","customer_id":"{self.customer}","purchase_price_cents":{self.cents},'
            f'"created_date":"{_CREATED}","purchase_date":"{self.date}"}}'
        ).encode()

    def fields(self, source: str = SOURCE) -> dict[bytes, bytes]:
        """The entry in the form that a relay publishes."""
        return {
            b"EventTypeName": b"InvoiceCreated",
            b"Payload": self.payload,
            b"EventId": f"{source}:{self.id}".encode(),
        }


@cache
def _purchases() -> list[tuple[int, str, int]]:
    purchases = sorted(cdnow.read(cdnow.FILE), key=lambda purchase: purchase.date)
    numbers = sorted({purchase.customer for purchase in purchases})
    number_of = {customer: number for number, customer in enumerate(numbers, 1)}
    return [(number_of[purchase.customer], purchase.date, purchase.cents) for purchase in purchases]


def invoices(count: int, customers: int = cdnow.CUSTOMERS) -> Iterator[Invoice]:
    """`count` invoices; spread over `customers` numbers if these aren't as many as CDNOW's."""
    for id, (customer, date, cents) in enumerate(islice(cycle(_purchases()), count), 1):
        if customers != cdnow.CUSTOMERS:
            customer = id * 7_919 % customers + 1
        yield Invoice(id, customer, date, cents)


def total(count: int) -> int:
    """The cents of that many invoices."""
    return sum(invoice.cents for invoice in invoices(count))


def published(url: str, key: str) -> tuple[int, int]:
    """The number of entries on the stream, and the cents in all of them. Reads it from end to end."""
    client = redis.Redis.from_url(url, protocol=2)
    count = cents = 0
    after = "-"
    while entries := _range(client, key, after):
        count += len(entries)
        cents += sum(int(_CENTS.findall(fields[b"Payload"])[0]) for _, fields in entries)
        after = f"({entries[-1][0].decode()}"
    client.close()
    return count, cents


def _range(client: redis.Redis, key: str, start: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(key, min=start, count=5_000)  # type: ignore[assignment]
    return found


def command(*parts: bytes) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def add(key: str, fields: dict[bytes, bytes]) -> bytes:
    """The command that appends an entry."""
    return command(b"XADD", key.encode(), b"*", *(part for pair in fields.items() for part in pair))


class Publisher:
    """A connection that sends commands made beforehand, and costs next to nothing."""

    def __init__(self, url: str) -> None:
        port = int(url.rsplit(":", 1)[1].partition("/")[0])
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def send(self, commands: list[bytes]) -> None:
        """Append entries; returns when all are answered. Raises Unexpected if one is refused."""
        self._socket.sendall(b"".join(commands))
        answers, wanted = b"", 2 * len(commands)  # an id takes two lines
        lines = 0
        while lines < wanted:
            part = self._socket.recv(262_144)
            if not part or part.startswith(b"-") or b"\n-" in part:
                raise Unexpected(f"refused to append: {part[:200]!r}")
            answers = part
            lines += answers.count(b"\n")

    def close(self) -> None:
        """May be repeated."""
        self._socket.close()


def publish(url: str, key: str, entries: Iterable[dict[bytes, bytes]]) -> None:
    """Append all entries, as fast as the server takes them."""
    publisher = Publisher(url)
    rest = iter(entries)
    while chunk := [add(key, fields) for fields in islice(rest, AT_ONCE)]:
        publisher.send(chunk)
    publisher.close()
