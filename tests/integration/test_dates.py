"""Dates from other publishers: every event counts, and means the same on every machine."""

import json
from pathlib import Path

import pytest
import redis

from support.tally import running
from support.waiting import eventually


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
@pytest.mark.whole
def test_what_has_no_date_in_utc_and_what_has_no_offset_counts(
    tmp_path: Path, client: redis.Redis, redis_url: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)

    def publish(type: str, **payload: object) -> None:
        client.xadd("event-stream", {"EventTypeName": type, "Payload": json.dumps(payload)})

    with running(tmp_path, redis_url=redis_url) as tally:
        account = {"name": "a", "description": "", "owned_by": "u"}
        for number, date in enumerate(DATES, 1):
            id = str(number)
            publish("AccountCreated", id=id, **account, created_date=date)
            publish("CustomerCreated", id=id, account_id=id, name="c", created_date=date)
            invoice = {"id": id, "customer_id": id, "purchase_price_cents": 100}
            publish("InvoiceCreated", **invoice, created_date=date, purchase_date="2019-01-06")
            if number > 1:
                publish("InvoiceDeleted", **{**invoice, "purchase_price_cents": 40}, deleted_date=date)

        def shown() -> list[tuple[str, int]]:
            listed = tally.accounts.get("/accounts")
            return [(each["account"]["created_date"], each["total_revenue_cents"]) for each in listed]

        expected = [(date, 60 if n else 100) for n, date in enumerate(DATES.values())]
        eventually(lambda: shown() == expected)
        assert client.exists("{event-stream}:dead") == 0
        assert "Traceback" not in tally.said()


DATES = {
    "0001-01-01T00:00:00+02:00": "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-02:00": "9999-12-31T23:59:59.999999Z",
    "2019-03-23T05:24:50": "2019-03-23T05:24:50Z",
}
