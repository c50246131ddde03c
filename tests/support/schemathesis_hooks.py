"""Rules that schemathesis can't read in the document. It loads this module in a process of its own.

`TALLY_TEST_CUSTOMER` is the id of an existing customer. At the end the number of answers is written to the
file `TALLY_TEST_ANSWERS`.
"""

import atexit
import itertools
import os
import re
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from hypothesis import Phase
from schemathesis.generation import GenerationMode

from tally.events import EVENT_RANGE, Id
from tally.http.values import Reference

NO_ACCOUNT = "9223372036854775807"
CUSTOMER = os.environ["TALLY_TEST_CUSTOMER"]
ANSWERS = Path(os.environ["TALLY_TEST_ANSWERS"])

# Without Phase.target, which spends half of the time on cases that get another status.
hypothesis.settings.register_profile("tally", phases=[Phase.explicit, Phase.generate, Phase.shrink])
hypothesis.settings.load_profile("tally")

_deleted: set[object] = (
    set()
)  # ids; a deleted account's owner and a deleted row's history are still shown, rightly
_keys = itertools.count()
_answers = itertools.count()
atexit.register(lambda: ANSWERS.write_text(str(next(_answers))))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Give a case of valid form valid references, too."""
    _wait_for_nothing(case)
    for name in [name for name in case.headers or () if name.lower() == "host"]:
        del case.headers[name]  # HTTP itself refuses a wrong one, on every route
    if (case.query or {}).get("format") == "csv":  # which has the whole list, as the document's text says
        case.query = {name: value for name, value in case.query.items() if name not in ("limit", "after")}
    if isinstance((case.headers or {}).get("If-Match"), str):
        case.headers["If-Match"] = "*"  # matches every revision
    if case.method in ("POST", "PATCH"):
        _take_an_unused_key(case)
        if case.path.startswith(("/invoices", "/credits")):
            case.body = _of_the_customer(case.body)
    elif case.path.endswith(("/is-owned-by/{user}", "/history")) and _id(case) in _deleted:
        case.path_parameters["id"] = NO_ACCOUNT
    elif case.method == "DELETE" and case.path_parameters == {"id": CUSTOMER}:
        case.path_parameters = {"id": "0"}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count the answer, and note a deleted id."""
    next(_answers)
    if case.method == "DELETE" and response.status_code == 204:
        _deleted.add(_id(case))


def _wait_for_nothing(case: Any) -> None:
    """Don't wait for events that nobody has published. The coverage phase's valid value is `0`."""
    awaited = str((case.headers or {}).get("Tally-After"))
    is_meant_well = case.meta and case.meta.generation.mode is GenerationMode.POSITIVE
    if re.fullmatch(EVENT_RANGE, awaited) or (awaited == "0" and is_meant_well):
        del case.headers["Tally-After"]


def _id(case: Any) -> object:
    return (case.path_parameters or {}).get("id")


def _take_an_unused_key(case: Any) -> None:
    """Else a key from before, with another body, is rightly refused."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= 200 and all("!" <= character <= "~" for character in key):
        case.headers["Idempotency-Key"] = f"{key[:170]}-{os.getpid()}-{next(_keys)}"


def _of_the_customer(body: Any) -> Any:
    """The same invoices or credits, but each id is an existing customer's, and none names an invoice.

    Each reference is unique. JSON Schema accepts 5.0 as an integer; the document's text says that it is
    none.
    """
    if isinstance(body, list):
        return [_of_the_customer(each) for each in body]
    if not isinstance(body, dict):
        return body
    mended = dict(body)
    if _is_a(Id, body.get("customer_id")):
        mended["customer_id"] = CUSTOMER
    if _is_a(Id, body.get("invoice_id")):
        del mended["invoice_id"]
    if _is_a(Reference, body.get("reference")):
        mended["reference"] = f"{body['reference'].strip()[:60]}-{os.getpid()}-{next(_keys)}"
    for field in ("purchase_price_cents", "credited_cents"):
        cents = body.get(field)
        if isinstance(cents, float) and cents.is_integer():
            mended[field] = int(cents)
    return mended


def _is_a(kind: type[Id | Reference], value: object) -> bool:
    try:
        kind.parse(value)
    except ValueError:
        return False
    return True
