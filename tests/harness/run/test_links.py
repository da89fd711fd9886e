"""A node is cut off and comes back, as its ranks see it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from harness.faults.strike import Strike
from harness.run import support
from harness.run.effects import RunEffects
from harness.run.second_job import SecondRanks
from harness.run.trace import Trace
from harness.run.written import Written
from harness.system.errors import HarnessError
from harness.system.network import PORT, address, missing
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save
from tests.harness.strikes import strike

REASON = support.missing() or missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

_OUTAGE_S = 3.0
"""Longer than the second in which a port that is up again lets nothing through by itself."""


def _talk(directory: Path, rank: int) -> None:
    """Rank 1 sends a byte before its operation and one after it; rank 0 says what came, and when.

    Ranks on one machine have one monotonic clock.
    """
    os.close(_begin_save(directory, rank))
    if rank == 1:
        line = _connect()
        line.send(b"a")
        line.recv(1)
        (directory / "began").write_text(str(time.monotonic()))
        (directory / "checkpoints" / "f").write_bytes(b"x")
        line.send(b"b")
        line.recv(1)
        return
    line = socket.create_server((address(0), PORT)).accept()[0]
    heard = [line.recv(1)]
    line.send(b"y")
    heard.append(line.recv(1))
    (directory / "ended").write_text(str(time.monotonic()))
    (directory / "heard").write_bytes(b"".join(heard))
    line.send(b"z")


def _connect() -> socket.socket:
    while True:
        try:
            return socket.create_connection((address(0), PORT))
        except ConnectionRefusedError:
            continue


def _cut(seconds: float | None) -> Strike:
    says = {"node": 1, "seconds": seconds}
    return strike("cut_link", says, ranks=(1,), save=1, operation="write", path="f")


def test_nothing_comes_through_until_the_cable_is_back(tmp_path: Path) -> None:
    trace, processes = supervise(
        _talk, tmp_path, ranks=2, request={"nodes": 2}, strikes=[_cut(_OUTAGE_S)]
    )

    assert (tmp_path / "heard").read_bytes() == b"ab"
    began, ended = (float((tmp_path / name).read_text()) for name in ("began", "ended"))
    assert ended - began >= _OUTAGE_S
    assert [(one.strike, one.then) for one in trace.fired] == [("s", None), ("s", "healed")]
    assert (processes.exits, processes.leaked) == ((0, 0), ())


def test_a_rank_that_is_cut_off_for_good_is_never_heard_again(tmp_path: Path) -> None:
    trace, processes = supervise(
        _talk, tmp_path, ranks=2, request={"nodes": 2}, strikes=[_cut(None)], deadline_s=3.0
    )

    assert not (tmp_path / "heard").exists()
    assert processes.hung == (0, 1)
    assert [operation.path for operation in trace.operations] == ["f", "f"]


def test_a_link_that_is_not_there_is_an_error_of_the_harness_and_does_not_fire(
    tmp_path: Path,
) -> None:
    nowhere: Any = None
    effects = RunEffects(
        trace=Trace(places=[[]], written=Written(tmp_path / "written.bin")),
        launch=nowhere,
        late=nowhere,
        second=SecondRanks(first=1),
        now_s=lambda: 0.0,
        cut=lambda _: None,
    )
    one = _cut(None)
    with pytest.raises(HarnessError, match="one node, which has no link"):
        one.fault.carry_out(one, effects)
    assert effects.trace.fired == []
