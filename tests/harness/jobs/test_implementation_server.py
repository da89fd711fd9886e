"""The implementation under test is imported once for many runs, where that is possible."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness.jobs.untouched  # noqa: F401 - imports torch before the fork, as the server has
from harness.jobs import implementation_server
from harness.jobs.implementation_server import ImplementationServers


def _answer(link: socket.socket) -> None:
    """Stands in for forking job launchers: say what is kept."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(link, 1000, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as other:
            other.send(
                json.dumps({"kept": implementation_server.kept, "process": os.getpid()}).encode()
            )


@pytest.fixture
def implementation_servers() -> Iterator[ImplementationServers]:
    found = ImplementationServers(_answer, lambda _parent: None)
    yield found
    found.close()


def _ask(
    implementation_servers: ImplementationServers, name: str, path: Path
) -> dict[str, Any] | None:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wanted = {"module": name, "path": str(path)}
    with mine, theirs:
        if not implementation_servers.pass_on(b"a run", theirs.fileno(), wanted):
            return None
        found: dict[str, Any] = json.loads(mine.recv(1000))
        return found


def test_runs_of_one_implementation_share_an_implementation_server_that_has_imported_it(
    implementation_servers: ImplementationServers, tmp_path: Path
) -> None:
    for name in ("kept_one", "kept_other"):
        (tmp_path / f"{name}.py").write_text("Manager = object")

    first = _ask(implementation_servers, "kept_one", tmp_path)
    again = _ask(implementation_servers, "kept_one", tmp_path)
    other = _ask(implementation_servers, "kept_other", tmp_path)

    assert first is not None
    assert first["kept"] == {"module": "kept_one", "path": str(tmp_path)}
    assert first == again
    assert other is not None
    assert other["process"] not in (first["process"], os.getpid())


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
    ids=["it raises", "it leaves a thread"],
)
def test_an_implementation_that_cannot_be_kept_is_left_to_the_ranks(
    implementation_servers: ImplementationServers, tmp_path: Path, code: str
) -> None:
    (tmp_path / "kept_by_nobody.py").write_text(code)
    assert _ask(implementation_servers, "kept_by_nobody", tmp_path) is None
    assert implementation_server.kept is None
