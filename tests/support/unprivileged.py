"""Another user of this machine, who has no rights: what a function finds out as `nobody`."""

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

from support.disks import unavailable

T = TypeVar("T")

_NOBODY = 65534


def as_nobody(function: Callable[[], T]) -> T:
    """Call `function` in a process of the user nobody, and answer what it answers, or raise what it raises.

    It can import nothing that is not imported yet: this Python may be where only its owner can read.
    """
    if os.geteuid() != 0:
        unavailable("another user", "only root can become one")
    answers, answering = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            answer: tuple[bool, object] = (True, function())
        except BaseException as error:
            answer = (False, error)
        os.write(answering, pickle.dumps(answer))
        os._exit(0)
    os.close(answering)
    with open(answers, "rb") as pipe:
        good, content = pickle.load(pipe)  # noqa: S301 (of our own child)
    os.waitpid(child, 0)
    if not good:
        raise content
    return content  # type: ignore[no-any-return]
