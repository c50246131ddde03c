"""`import --undo` has several deletions on their way at once."""

import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import SilentHandler, answering
from tally.commands.command_line import Failed
from tally.commands.undoing import undo_file
from tally.config import CustomersSettings, Settings
from tally.store.import_note import ImportNote, Origin

FILE = b"customer,purchase_date,amount\n"
ROWS = 300


@pytest.fixture
def port() -> Iterator[int]:
    """A customers service that answers a deletion once another has come."""
    two = threading.Barrier(2, timeout=10)

    class Handler(SilentHandler):
        def do_DELETE(self) -> None:  # noqa: N802 -- a name of http.server
            try:
                two.wait()
            except threading.BrokenBarrierError:
                self.send_response(500)
            else:
                self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with answering(Handler) as port:
        yield port


def test_several_rows_are_taken_back_at_once(tmp_path: Path, port: int) -> None:
    note = ImportNote(tmp_path, "note")
    note.begin(Origin(hashlib.sha256(FILE).hexdigest(), "1"))
    note.after_purchases(ROWS, "invoices", range(1, ROWS + 1))
    note.close()
    settings = Settings(tmp_path, customers=CustomersSettings(port=port))
    told = undo_file(settings, io.BytesIO(FILE), None, None)
    assert told == f"Taken back: 0 credits, {ROWS} invoices, 0 customers."


def test_an_import_whose_first_batch_has_no_answer_is_not_called_unknown(tmp_path: Path, port: int) -> None:
    note = ImportNote(tmp_path, "note")
    note.begin(Origin(hashlib.sha256(FILE).hexdigest(), "1"))
    note.before_sending("customers", [0], "key")
    note.close()
    settings = Settings(tmp_path, customers=CustomersSettings(port=port))
    with pytest.raises(Failed, match="while a batch was on its way: run it again to its end"):
        undo_file(settings, io.BytesIO(FILE), None, None)
