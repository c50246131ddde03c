"""`python supervisor.py` as a process that is forked from one which has imported it.

This saves half a second of processor time. If the environment changes how Python starts (PYTHONPATH,
LD_PRELOAD), a new Python is started instead. Tests of inheritance, of the help and of the installed
command always start a new one.
"""

import atexit
import gc
import json
import mimetypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

SUPERVISOR = Path(__file__).parents[2] / "supervisor.py"
_MOST = 2**20  # bytes of an order


class Program:
    """`python supervisor.py` with `arguments`, in its own session; has the methods of subprocess.Popen.

    Its output is appended to the files `output` and `error`; they may be the same.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        error: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._lock = threading.Lock()
        told, theirs = os.pipe()
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115 -- until it has ended
        order = [*arguments], str(output), str(error), os.getcwd(), {**(environment or os.environ)}
        socket.send_fds(_forker(), [json.dumps(order).encode()], [theirs])
        os.close(theirs)
        self.pid = self._number()

    def poll(self) -> int | None:
        """Its exit status, or minus the number of the signal that killed it; None while it runs."""
        with self._lock:
            if self.returncode is None and _is_readable(self._told):
                self.returncode = self._number()
                self._told.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit status. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout if timeout is not None else None
        while (status := self.poll()) is None:
            if deadline and timeout and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired([*self.args], timeout)
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        told = self._told.readline()
        if not told:
            raise RuntimeError("who starts programs has ended")
        return int(told)


def _is_readable(file: IO[bytes]) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


@cache
def _forker() -> socket.socket:
    """A socket to the process that has imported everything and forks; it ends with this process."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    orders = theirs.fileno()
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})"
    code = f"{path}; from support.program import fork_what_is_ordered as fork; fork({orders})"
    subprocess.Popen([sys.executable, "-c", code], cwd="/", pass_fds=[orders])
    theirs.close()
    return ours


def fork_what_is_ordered(descriptor: int) -> None:
    """Start programs until the socket is closed. Each program's parent reports how it ends."""
    from tally.commands.command_line import imported
    from tally.supervisor import COMMANDS

    for name in COMMANDS:
        imported(name)
    mimetypes.init()  # as Falcon does in each HTTP process
    gc.collect()
    gc.freeze()  # else the first collection of each program copies all this memory

    orders = socket.socket(fileno=descriptor)
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _MOST, 1)
        if not order:
            return
        if not os.fork():
            orders.close()
            _start(*json.loads(order), *descriptors)
        os.close(descriptors[0])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _start(
    arguments: list[str], output: str, error: str, folder: str, environment: dict[str, str], tell: int
) -> NoReturn:
    pid = os.fork()
    if not pid:
        os.close(tell)
        _be(arguments, output, error, folder, environment)
    os.write(tell, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(tell, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _be(arguments: list[str], output: str, error: str, folder: str, environment: dict[str, str]) -> NoReturn:
    from setproctitle import getproctitle

    from tally.commands.command_line import FROM_A_CHECKOUT
    from tally.supervisor import main

    getproctitle()  # it looks for the title's memory, which it can only find with the first environment
    own = _read_at_the_start(os.environ)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored if the tests were started with nohup
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    opened = os.open(os.devnull, os.O_RDONLY), os.open(output, flags), os.open(error, flags)
    for descriptor, each in enumerate(opened):
        os.dup2(each, descriptor)
        os.close(each)
    if _read_at_the_start(environment) != own:
        anew = [sys.executable, str(SUPERVISOR), *arguments]
        os.execve(sys.executable, anew, environment)  # noqa: S606
    sys.argv = [str(SUPERVISOR), *arguments]
    try:
        main(prog_name=FROM_A_CHECKOUT)
    except SystemExit as ended:
        # Python would take apart all that it shares with who forked it, and so copy it before.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    raise AssertionError("a program of click exits")


def _read_at_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the linker and Python read when a program starts."""
    return {name: value for name, value in environment.items() if name.startswith(("LD_", "PYTHON"))}
