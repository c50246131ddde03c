"""Tally without a checkout: a wheel, installed in an environment of its own."""

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
    """A writable copy of the checkout, only with tracked files."""
    return shutil.copytree(ROOT, directory / "tally", ignore=_LEAVE)


def built_wheel(tree: Path, directory: Path) -> Path:
    """Build the wheel of `tree` without the network."""
    _python(
        "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, tree,
        directory=directory,
    )  # fmt: skip
    (made,) = directory.glob("*.whl")
    return made


def built_sdist(tree: Path, directory: Path) -> Path:
    """Build the sdist of `tree`, as a build tool would ask setuptools for it."""
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
    """An environment with the wheel; Tally's dependencies come from this one."""

    directory: Path

    @classmethod
    def of(cls, wheel: Path, directory: Path) -> "Installation":
        """Install the wheel into a new environment in `directory`."""
        venv.EnvBuilder(symlinks=True).create(directory)
        made = cls(directory)
        # This only adds search folders, after the environment's own: editable installs here have no effect.
        here = [folder for folder in sys.path if folder.endswith(("/site-packages", "/dist-packages"))]
        (made.site_packages / "dependencies.pth").write_text("\n".join(here))
        _python(
            "-m", "pip", "--python", made.program("python"), "install", "--quiet", "--no-deps", "--no-index",
            "--no-compile", wheel, directory=directory,
        )  # fmt: skip
        return made

    @property
    def site_packages(self) -> Path:
        """Path of the folder with its packages."""
        (found,) = self.directory.glob("lib/python3.*/site-packages")
        return found

    @property
    def package(self) -> Path:
        """Path of the folder with Tally's own files."""
        return self.site_packages / "tally"

    def program(self, name: str) -> Path:
        """Path of a program of the environment."""
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
    """This process's environment, without paths to this checkout, and with `environment` added."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, **environment}
