"""POST /invoices by FastAPI on uvicorn: validated by pydantic, committed to SQLite, then published.

One commit and one XADD for each request, in one worker process.
"""

import signal
import socket
import sqlite3
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path

import redis.asyncio
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from benchmarks.apart import Tell
from benchmarks.entries import STREAM

FILE = "fastapi.db"

_SCHEMA = """
CREATE TABLE customer (id INTEGER PRIMARY KEY);
CREATE TABLE invoice (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id INTEGER NOT NULL REFERENCES customer,
    purchase_price_cents INTEGER NOT NULL,
    purchase_date TEXT NOT NULL,
    created_date TEXT NOT NULL
);
CREATE INDEX invoice_by_customer ON invoice (customer_id);
"""


class NewInvoice(BaseModel):
    """The body of a request."""

    customer_id: str = Field(pattern="^(0|[1-9][0-9]{0,18})$")
    purchase_date: date
    purchase_price_cents: int = Field(strict=True, ge=0, le=1_000_000_000_000)


class Invoice(NewInvoice):
    """The payload of the published event."""

    id: str
    created_date: datetime


class Made(BaseModel):
    """The body of an answer."""

    id: str


def connect(file: Path, customers: int) -> sqlite3.Connection:
    """A new database with `customers` customers in it."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(_SCHEMA)
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO customer VALUES (?)", [(id,) for id in range(1, customers + 1)])
    connection.execute("COMMIT")
    return connection


def create_app(connection: sqlite3.Connection, client: "redis.asyncio.Redis") -> FastAPI:
    """The application over a database and a Redis."""
    app = FastAPI()

    @app.post("/invoices", status_code=201)
    async def create(new: NewInvoice) -> Made:
        created = datetime.now(UTC)
        row = (
            int(new.customer_id),
            new.purchase_price_cents,
            new.purchase_date.isoformat(),
            created.isoformat(),
        )
        try:
            cursor = connection.execute(
                "INSERT INTO invoice (customer_id, purchase_price_cents, purchase_date, created_date)"
                " VALUES (?, ?, ?, ?)",
                row,
            )
        except sqlite3.IntegrityError:
            raise HTTPException(422, "There is no such customer.") from None
        invoice = Invoice(id=str(cursor.lastrowid), created_date=created, **new.model_dump())
        await client.xadd(STREAM, {"EventTypeName": "InvoiceCreated", "Payload": invoice.model_dump_json()})
        return Made(id=invoice.id)

    return app


def serve(tell: Tell, directory: Path, url: str, customers: int) -> None:
    """Serve until SIGTERM; tell the port once it answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    connection = connect(directory / FILE, customers)
    connection.execute("PRAGMA foreign_keys = ON")
    client = redis.asyncio.Redis.from_url(url)
    config = uvicorn.Config(create_app(connection, client), log_level="warning", access_log=False)
    server = uvicorn.Server(config)

    def tell_when_started() -> None:
        while not server.started:
            time.sleep(0.01)
        tell(listener.getsockname()[1])

    threading.Thread(target=tell_when_started, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises the signal again once it has ended
    server.run(sockets=[listener])
