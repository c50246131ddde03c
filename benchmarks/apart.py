"""Call functions in new processes: the measured and the measuring code share no interpreter.

The child imports the module of its function, and nothing else of ours.
"""

import gc
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from benchmarks.client import Unexpected
from tally.actors.actor import die_with_parent
from tally.commands.command_line import OBJECTS

P = ParamSpec("P")
T = TypeVar("T")

TELL_SECONDS = 30.0
END_SECONDS = 30.0

Tell = Callable[[Any], None]
"""Tells the process that started this one something: once, when it is ready."""


class Server(NamedTuple):
    """A process that serves: its port and its id."""

    port: int
    pid: int


def apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call `function`, one of a module's own, in a new process; return its result.

    Raises Unexpected with the child's traceback if it fails.
    """
    with _started(function, arguments, named, told=False) as (_, connection):
        answer: T = _receive(connection, None)
        return answer


@contextmanager
def serving(
    function: Callable[Concatenate[Tell, P], None], *arguments: P.args, **named: P.kwargs
) -> Iterator[Server]:
    """Run `function` in a new process, and yield the port it serves. At the end it gets SIGTERM."""
    with _started(function, arguments, named, told=True) as (process, connection):
        yield Server(_receive(connection, TELL_SECONDS), process.pid)
        process.terminate()
        _receive(connection, END_SECONDS)


@contextmanager
def _started(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], told: bool
) -> Iterator[tuple["subprocess.Popen[bytes]", "Connection[Any, Any]"]]:
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.apart", str(theirs.fileno())],
        cwd=Path(__file__).parents[1],
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C is for the parent
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),
    )
    theirs.close()
    try:
        ours.send((function, arguments, named, told))
        yield process, ours
        process.wait(END_SECONDS)
    finally:
        process.kill()
        process.wait()
        ours.close()


def _receive(connection: "Connection[Any, Any]", seconds: float | None) -> Any:
    if not connection.poll(seconds):
        raise Unexpected(f"a process says nothing for {seconds} s")
    try:
        good, content = connection.recv()
    except EOFError:
        raise Unexpected("a process ended without a word") from None
    if not good:
        raise Unexpected(content)
    return content


def _be_child(descriptor: int) -> None:
    connection: Connection[Any, Any] = Connection(descriptor)
    function, arguments, named, told = connection.recv()

    def tell(content: Any) -> None:
        connection.send((True, content))

    gc.set_threshold(OBJECTS)  # as the supervisor does; also for everything measured beside Tally
    gc.collect()
    gc.freeze()
    try:
        answer = function(*([tell] if told else []), *arguments, **named)
        connection.send((True, answer))
    except (Exception, pickle.PicklingError):
        connection.send((False, traceback.format_exc()))


if __name__ == "__main__":
    _be_child(int(sys.argv[1]))
