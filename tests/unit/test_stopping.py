"""The order to stop is noticed wherever the signal arrives."""

import os
import subprocess
import sys
import threading
import time

import pytest

from tally.actors.doorbell import StopOrder

_INTERRUPTED = """
import os, signal, sys, threading
from tally.actors.doorbell import StopOrder

def tell(frame, event, argument):
    frame.f_trace_opcodes = True
    if event in ("opcode", "line"):  # Python 3.12.1 tells of lines alone
        told.append(frame)
        if len(told) == WHEN:
            os.kill(os.getpid(), signal.SIGTERM)
    return tell

WHEN, told, order = int(sys.argv[1]), [], StopOrder()
signal.signal(signal.SIGTERM, lambda *_: order.set())
sys.settrace(tell)
DONE
sys.settrace(None)
print("done" if len(told) < WHEN else "interrupted")
"""


@pytest.mark.parametrize("done", ["order.wait(0.01)", "order.set()"])
def test_a_handler_that_interrupts_what_is_done_with_it_can_set_it_at_each_moment(done: str) -> None:
    """threading.Event hangs here: both wait() and set() hold its lock for a moment."""
    heard, moment = "interrupted", 0
    while heard == "interrupted":
        moment += 1
        program = [sys.executable, "-c", _INTERRUPTED.replace("DONE", done), str(moment)]
        run = subprocess.run(program, capture_output=True, text=True, timeout=10, check=True)
        heard = run.stdout.strip()
    assert (heard, moment > 1) == ("done", True)


def test_who_waits_is_woken_by_it_and_by_the_others_it_waits_for() -> None:
    order, (reading, writing) = StopOrder(), os.pipe()
    assert not order.wait(0.01, reading)
    os.write(writing, b"!")
    assert order.wait(60, reading)
    assert not order.is_set()
    threading.Timer(0.05, order.set).start()
    began = time.monotonic()
    assert order.wait(60)
    assert order.is_set()
    assert time.monotonic() - began < 30
    assert order.wait(60), "also who comes later"
    order.close()
    os.close(reading)
    os.close(writing)
