"""Log lines on a terminal: no text in them can control the terminal."""

import subprocess
import sys

import pytest

SAID = """
import logging, structlog
from tally.actors import logs
from tally.config import LogSettings

logs.configure(LogSettings(format="text", level="info"), "an-actor")
log = structlog.get_logger()
hostile = "{hostile}"
log.info("one", type=hostile, reason="with blanks " + hostile)
try:
    raise ValueError(hostile)
except ValueError:
    log.exception("two")
logging.getLogger(hostile).warning(hostile)
"""


@pytest.mark.parametrize("hostile", ["\x1b[2Jgone", "\x1b]0;title\x07", "\x9b31m", "ana\u202enob", "\rover"])
def test_what_others_say_is_escaped(hostile: str) -> None:
    written = hostile.encode("unicode_escape").decode()
    done = subprocess.run(
        [sys.executable, "-c", SAID.replace("{hostile}", written)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr.count(written) >= 4, done.stderr
    assert all(line.isprintable() for line in done.stderr.split("\n"))


def test_threads_may_log_while_others_wait_for_room() -> None:
    code = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import structlog\n"
        "from tally.actors import logs\n"
        "from tally.config import LogSettings\n"
        "logs.configure(LogSettings(format='json', level='info'), 'an-actor')\n"
        "log = structlog.get_logger()\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(lambda n: log.info('said', text='x' * 3000), range(64)))\n"
        "print('done')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"  # nobody has read the log, so it is full by then
        process.kill()
