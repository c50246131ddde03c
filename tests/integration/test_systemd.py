"""Started by systemd, Tally tells it when requests are answered."""

import socket
from pathlib import Path

import pytest

from support.tally import running


@pytest.mark.parametrize("abstract", [False, True], ids=["a file", "an abstract socket"])
def test_systemd_is_told_once_requests_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name if abstract else name)
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        with running(tmp_path) as tally:
            assert systemd.recv(100) == b"READY=1"
            assert tally.accounts.get("/health/ready") == {"status": "ok"}


def test_it_starts_when_nobody_wants_to_hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with running(tmp_path) as tally:
        assert tally.accounts.get("/health/ready") == {"status": "ok"}
