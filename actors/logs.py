"""Log lines: JSON, unless a person watches."""

import io
import logging
import os
import select
import stat
import sys
import threading
from contextlib import suppress
from typing import TextIO

import structlog

from tally.config import LogSettings
from tally.http.visible import printable

PATIENCE_SECONDS = 0.5  # how long the first line waits for a reader that stands still; later ones don't wait


def configure(settings: LogSettings, actor: str) -> None:
    """Make structlog and the libraries' loggers write lines to standard error that name `actor`."""
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    level = getattr(logging, settings.level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, line: {**line, "actor": actor},
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    lines = _Lines()
    rendered: list[structlog.typing.Processor]
    if text:  # the default formatter of exceptions shows variables, even secrets
        is_shown = sys.stderr.isatty()
        told = structlog.dev.ConsoleRenderer(colors=is_shown, exception_formatter=_plain_traceback)
        rendered = [_printable_values, told]
    else:
        rendered = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, _of_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)
    # Queued requests are normal; waitress would warn about each one.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _printable_values(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters: a publisher or client must not control the terminal that shows the log."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in line.items()}


def _plain_traceback(sink: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    told = io.StringIO()
    structlog.dev.plain_traceback(told, exc_info)
    sink.write("\n".join(map(printable, told.getvalue().split("\n"))))


def _of_library(_: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put a library's free text under one stable event name."""
    return {**line, "event": "library", "message": line["event"]}


class _Lines:
    """Standard error, a whole line to one write(2), so that lines of many processes don't mix.

    If nobody reads it, or the disk behind it is full, the line is lost and the work goes on. A reader that
    stands still (a terminal after Ctrl-S, a log collector that hangs) is waited for only once.
    """

    def __init__(self) -> None:
        self._patience = PATIENCE_SECONDS
        # Else another thread could fill the room that this one saw, and this one would wait for ever.
        self._one_at_a_time = threading.RLock()

    def write(self, text: str) -> None:
        line = text.encode(errors="backslashreplace")
        with self._one_at_a_time, suppress(OSError):
            self._write(line)

    def _write(self, line: bytes) -> None:
        room = select.poll()
        room.register(2, select.POLLOUT)
        size = len(line) if stat.S_ISREG(os.fstat(2).st_mode) else select.PIPE_BUF
        for start in range(0, len(line), size):
            if not room.poll(self._patience * 1000):
                self._patience = 0.0
                return
            os.write(2, line[start : start + size])
        self._patience = PATIENCE_SECONDS

    def msg(self, message: str) -> None:
        self.write(message + "\n")

    debug = info = warning = error = critical = exception = log = msg
