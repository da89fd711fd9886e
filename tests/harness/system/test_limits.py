"""The limit of open files of the processes that work for many ranks."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run import services
from harness.system.limits import raise_descriptor_limit

_LOW = 256
_PRINT = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"


@pytest.fixture(autouse=True)
def hard() -> Iterator[int]:
    """The soft limit is low, and the hard one as it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LOW, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_children_can_open_as_many_files_as_the_hard_limit_allows(hard: int) -> None:
    raise_descriptor_limit()

    assert int(subprocess.check_output([sys.executable, "-c", _PRINT])) == hard


class _NoServer:
    """Takes the place of a fork server."""

    def __init__(self, log: Path) -> None:
        """Starts nothing."""

    def wait_until_ready(self) -> None:
        """Is ready."""

    def close(self) -> None:
        """Has nothing to end."""


def test_the_process_of_the_supervisor_can_open_as_many_files_as_its_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard: int
) -> None:
    monkeypatch.setattr(services, "ForkServer", _NoServer)

    with services.Services(tmp_path) as shared:
        shared.server()

    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
