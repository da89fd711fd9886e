"""Makes an attempt in a child that can be lost: in some containers it cannot be undone."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_a_child(attempt: Callable[[], str]) -> str:
    """Returns why an attempt failed, or an empty string."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, attempt().encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        reason = answer.read()
    os.waitpid(pid, 0)
    return reason
