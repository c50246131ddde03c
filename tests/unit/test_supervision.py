"""The supervisor, where a test can't wait for hours."""

import multiprocessing.popen_fork  # noqa: F401 -- nobody may read it from the disk
import os
import resource
import signal
from contextlib import closing
from pathlib import Path

import pytest

from support.unprivileged import as_nobody
from tally.actors.control import ControlSocket
from tally.actors.supervision import ActorSpec, Stage, State, Supervisor
from tally.config import LogSettings, SupervisorSettings


def test_a_process_that_could_not_be_made_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Each try left four: after an hour or so without a free process, no actor could be started any more."""
    with closing(ControlSocket(tmp_path)) as control:
        spec = ActorSpec("accounts-relay", print, Stage.RELAY)
        supervisor = Supervisor([spec], SupervisorSettings(), LogSettings(), print, (), control, print)

        def opened_by_tries() -> int:
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                with pytest.raises(BlockingIOError):
                    supervisor._start(supervisor.children[0])
            return len(os.listdir("/proc/self/fd")) - before

        assert as_nobody(opened_by_tries) == 0


@pytest.mark.parametrize(("state", "is_renewed"), [(State.STARTING, True), (State.STOPPING, False)])
def test_sighup_also_renews_what_an_earlier_one_has_just_started(
    tmp_path: Path, state: State, is_renewed: bool
) -> None:
    """It was left out, as the one whose turn it was: its process is older than the order."""
    with closing(ControlSocket(tmp_path)) as control:
        spec = ActorSpec("accounts-relay", print, Stage.RELAY)
        supervisor = Supervisor([spec], SupervisorSettings(), LogSettings(), print, (), control, print)
        supervisor._renewing, supervisor.children[0].state = supervisor.children[0], state
        supervisor._orders.append(signal.SIGHUP)
        supervisor._renew()
        assert (supervisor.children[0] in supervisor._to_renew) == is_renewed
