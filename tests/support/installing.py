"""Tally as somebody has it who never saw a checkout: a wheel, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from support.tally import ROOT

_LEAVE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "data", "tests")


def copied_checkout(directory: Path) -> Path:
    """A copy of the checkout without what is not tracked, to write into."""
    return shutil.copytree(ROOT, directory / "tally", ignore=_LEAVE)


def built_wheel(tree: Path, directory: Path) -> Path:
    """The wheel of `tree`, made without the network."""
    _python(
        "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, tree,
        directory=directory,
    )  # fmt: skip
    (made,) = directory.glob("*.whl")
    return made


def built_sdist(tree: Path, directory: Path) -> Path:
    """The sdist of `tree`, as a build tool would ask setuptools for it."""
    code = "import sys, setuptools.build_meta as build; build.build_sdist(sys.argv[1])"
    _python("-c", code, directory, directory=tree)
    (made,) = directory.glob("*.tar.gz")
    return made


def _python(*arguments: str | Path, directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=directory, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Installation(NamedTuple):
    """An environment that holds the wheel, and sees what Tally depends on in this one."""

    directory: Path

    @classmethod
    def of(cls, wheel: Path, directory: Path) -> "Installation":
        """Install the wheel into a new environment in `directory`."""
        venv.EnvBuilder(symlinks=True).create(directory)
        made = cls(directory)
        # Only folders to look in, after its own: what is editable here is not seen there.
        here = [folder for folder in sys.path if folder.endswith(("/site-packages", "/dist-packages"))]
        (made.site_packages / "dependencies.pth").write_text("\n".join(here))
        _python(
            "-m", "pip", "--python", made.program("python"), "install", "--quiet", "--no-deps", "--no-index",
            "--no-compile", wheel, directory=directory,
        )  # fmt: skip
        return made

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        (found,) = self.directory.glob("lib/python3.*/site-packages")
        return found

    @property
    def package(self) -> Path:
        """Where Tally's own files are."""
        return self.site_packages / "tally"

    def program(self, name: str) -> Path:
        """Where a program of the environment is."""
        return self.directory / "bin" / name

    def run(
        self, *command: str | Path, directory: Path, environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment in `directory` until it ends."""
        program, *arguments = map(str, command)
        return subprocess.run(
            [self.program(program), *arguments],
            cwd=directory, env=own(environment), capture_output=True, text=True, timeout=60,
        )  # fmt: skip


def own(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what leads to this checkout, and with `environment`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, **environment}
