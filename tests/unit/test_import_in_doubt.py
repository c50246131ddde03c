"""`import` names what was sent and not answered, so that a person can look for it."""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from support.cli import SilentHandler, answering
from tally.commands.command_line import Failed
from tally.commands.import_job import Job, Options
from tally.commands.importing import import_file
from tally.config import AccountsSettings, CustomersSettings, Settings
from tally.events import Id, now, rfc3339
from tally.importing import purchase_file
from tally.importing.comparing import Identity
from tally.importing.tables import Reading
from tally.store.import_note import ImportNote

FILE = b"""customer,purchase_date,amount
one,2019-01-01,1.00
two,2019-01-02,-2.00
one,2019-01-03,3.00
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Services that answer every question with nothing."""

    class Handler(SilentHandler):
        def do_GET(self) -> None:  # noqa: N802 -- a name of http.server
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    with answering(Handler) as port:
        yield port


@pytest.mark.parametrize(
    ("done", "sending", "told"),
    [
        (0, {"kind": "invoices", "places": "0,2"}, "invoices from one of customer 7 on 2019-01-01 on"),
        (2, {"kind": "credits", "places": "1"}, "credits from one of customer 8 on 2019-01-02 on"),
        (0, {}, "invoices from one of customer 7 on 2019-01-01 on"),  # as release 0.1.0 noted it
    ],
)
def test_a_batch_in_doubt_is_named_by_its_own_first_row(
    tmp_path: Path, port: int, done: int, sending: dict[str, str], told: str
) -> None:
    options = Options(Reading(negative="credit"), Id(1), Identity())
    job = Job(purchase_file.read(io.BytesIO(FILE), options.reading, lambda _: None), options)
    with closing(ImportNote(tmp_path, job.name)) as note:
        note.after_customers(["7", "8"])
        note.after_purchases(done)
        with note.path.open("a") as file:
            step = {"sending": rfc3339(now() - timedelta(hours=25)), **sending}
            file.write(json.dumps(step) + "\n")
    settings = Settings(
        tmp_path, customers=CustomersSettings(port=port), accounts=AccountsSettings(port=port)
    )
    with pytest.raises(Failed, match=told):
        import_file(settings, io.BytesIO(FILE), options, None)
