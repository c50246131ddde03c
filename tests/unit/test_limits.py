"""The limits of an HTTP process follow from the resources of its machine."""

import os
from pathlib import Path

import pytest

from tally.actors.limits import FEWEST_CONNECTIONS, MIB, MOST_CONNECTIONS, memory_bytes, most_connections

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_connections_are_as_many_as_there_are_files_for_them_and_for_half_of_their_bodies() -> None:
    assert most_connections(files=4096, opened=40, threads=16) == MOST_CONNECTIONS
    assert most_connections(files=1_000_000, opened=40, threads=16) == MOST_CONNECTIONS
    few = most_connections(files=1024, opened=40, threads=16)
    assert 500 < few < 600
    assert few * 3 / 2 + 40 + 16 * 8 <= 1024


@pytest.mark.parametrize("files", [0, 20, 64, 256])
def test_connections_are_a_handful_at_least(files: int) -> None:
    assert most_connections(files, opened=40, threads=16) >= FEWEST_CONNECTIONS


@pytest.mark.parametrize(
    ("group", "files", "memory"),
    [
        ("0::/", {}, MACHINE),
        ("0::/", {"memory.max": "max"}, MACHINE),
        ("0::/", {"memory.max": str(300 * MIB)}, 300 * MIB),
        ("0::/", {"memory.max": str(MACHINE + 1)}, MACHINE),
        ("0::/a.slice/b", {"a.slice/b/memory.max": "max", "a.slice/memory.max": str(MIB)}, MIB),
        ("0::/a.slice/b", {"a.slice/b/memory.max": str(MIB), "a.slice/memory.max": str(2 * MIB)}, MIB),
        ("0::/../../not/mounted", {"memory.max": str(MIB)}, MIB),
        ("9:cpu,memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": str(MIB)}, MIB),
        ("9:cpu:/a\n8:memory:/b", {"memory/a/memory.limit_in_bytes": str(MIB)}, MACHINE),
        ("9:memory:/b", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
    ],
)
def test_the_memory_is_the_machine_s_or_what_a_control_group_leaves_of_it(
    tmp_path: Path, group: str, files: dict[str, str], memory: int
) -> None:
    files = {"proc/self/cgroup": group} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert memory_bytes(tmp_path) == memory


def test_without_control_groups_the_memory_is_the_machine_s(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path) == MACHINE
