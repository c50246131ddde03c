"""Call a function as another user of this machine without rights: `nobody`."""

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

from support.disks import unavailable

T = TypeVar("T")

_NOBODY = 65534


def as_nobody(function: Callable[[], T]) -> T:
    """Call `function` in a process of the user nobody; return its result, or raise its exception.

    It can import only modules that are imported already: perhaps only the owner can read this Python.
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
