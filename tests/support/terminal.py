"""Run commands of `python supervisor.py` as a person does: on a terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from support.program import SUPERVISOR
from support.waiting import PATIENCE

_ORDERS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")  # colours and cursor movements


def on_terminal(
    *arguments: str | Path,
    columns: int = 100,
    until: Callable[[str], bool] | None = None,
    seconds: float = PATIENCE,
) -> tuple[int, str]:
    """Run a command on a terminal to its end; return its exit status and its output.

    Press Ctrl-C when `until` is true for the output so far.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, str(SUPERVISOR), *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = ""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 65536).decode(errors="replace")
                except OSError:  # no process has the terminal open any more
                    return process.wait(seconds), _ORDERS.sub("", shown)
            if until and until(_ORDERS.sub("", shown)):
                process.send_signal(signal.SIGINT)
                until = None
        raise AssertionError(f"not within {seconds} s; shown: {shown!r}")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
