"""Corrects what a program inherits from its parent: standard streams, signals, docstrings."""

import codecs
import io
import json
import os
import signal
import sys
from typing import Any


class CannotPrint(OSError):
    """Standard output can't be written to: a full disk, a closed descriptor."""


class _Output(io.FileIO):
    """Standard output with errors of its own, which differ from those of other files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CannotPrint(error.errno, error.strerror, "standard output") from error


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """The characters that an encoding lacks, as JSON escapes them. So printed JSON stays JSON."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("escaped", _escaped)


def mend() -> str | None:
    """Repair all that can be repaired, before anything else; answer the rest in a line for the user.

    A closed standard stream is opened again. Otherwise the next file would get its number, and its output.
    SIGTERM and SIGHUP end a command as Ctrl-C does. Otherwise unfinished copies and a changed terminal stay.
    """
    for number, name, flags in (
        (0, "stdin", os.O_RDONLY),
        (1, "stdout", os.O_RDONLY),  # so that printing fails
        (2, "stderr", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, flags), number)
            stream = os.fdopen(number, "r" if number == 0 else "w", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _told_apart(sys.stdout)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it were ignored, no child could be waited for
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if sys.flags.optimize > 1:
        return "-OO and PYTHONOPTIMIZE=2 take away the texts of help and of messages; do without, or use -O"
    return None


def _told_apart(stream: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="escaped",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def let_go_of_output() -> None:
    """Drop all output, pending and later; else Python complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
