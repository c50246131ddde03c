"""Prometheus's own tool, which checks metrics and rules."""

import shutil
import subprocess
from pathlib import Path

from support.disks import unavailable


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """Run promtool; return its output. Fails with that output if it finds a fault."""
    program = shutil.which("promtool")
    if program is None:
        unavailable("promtool", "it is not on PATH; `.ci/promtool` gets it out of Debian's package")
    done = subprocess.run(
        [program, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
