"""The process of a thread, with its parent and its group."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from harness.system.membership import Membership, membership, process_of


def test_a_thread_belongs_to_its_process() -> None:
    found: list[tuple[Membership, int]] = []

    def look() -> None:
        thread = threading.get_native_id()
        found.append((membership(thread), process_of(thread)))

    other = threading.Thread(target=look)
    other.start()
    other.join()
    look()

    mine = Membership(process=os.getpid(), parent=os.getppid(), group=os.getpgid(0))
    assert found == [(mine, os.getpid())] * 2


def test_a_child_has_its_parent_and_its_own_group() -> None:
    with subprocess.Popen(["sleep", "100"], process_group=0) as child:
        found, process = membership(child.pid), process_of(child.pid)
        child.kill()

    assert found == Membership(process=child.pid, parent=os.getpid(), group=child.pid)
    assert process == child.pid


@pytest.mark.parametrize("ask", [membership, process_of])
def test_a_thread_that_is_gone_is_an_error(ask: Callable[[int], object]) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()

    with pytest.raises(FileNotFoundError):
        ask(child.pid)
