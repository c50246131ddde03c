"""The pace of `import`, and the order to stop it."""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import retry_if_exception, stop_after_delay
from tenacity.wait import wait_random_exponential

from tally.actors.doorbell import StopOrder
from tally.commands.service_client import Refused, ServiceClient, Unavailable, patient

AHEAD = 3  # batches that may be recorded and not shown yet: others' rows come after them

_SHOWN_SECONDS = 10  # how long to wait until recorded rows are shown


class Pace:
    """Keeps an import from running ahead of what is shown: others' rows would wait behind all of it."""

    def __init__(self, accounts: ServiceClient) -> None:
        self._accounts = accounts
        self._sent: deque[str] = deque()
        self._has_told = False
        self._patiently = patient(
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and not self._has_told),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            stop=stop_after_delay(_SHOWN_SECONDS),
        )

    def keep(self, events: str | None, say: Callable[[str], None]) -> None:
        """Call it before a batch: waits until the batch some places before it is shown, or some seconds.

        `events` are those of the last batch, None before the first.
        """
        if events is None:
            return
        self._sent.append(events)
        if len(self._sent) <= AHEAD:
            return
        try:
            self._patiently(self._accounts.await_events, self._sent.popleft(), _SHOWN_SECONDS)
        except (Unavailable, Refused) as error:
            if not self._has_told:
                self._has_told = True
                say(f"what is imported is not shown yet ({error}); going on, slowly")


@contextmanager
def stopped_by_signals() -> Iterator[StopOrder]:
    """The first SIGINT or SIGTERM gives the order; the second has its usual effect."""
    stopping = StopOrder()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: object) -> None:
        stopping.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopping.close()
