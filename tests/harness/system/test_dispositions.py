"""Ranks notice signals even if the process that starts them ignores these."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run import support
from harness.run.server import ForkServer
from harness.system.dispositions import restore_dispositions

IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture
def ignoring() -> Iterator[None]:
    """This process as `nohup` or a background shell would have started it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("ignoring")
def test_ignored_signals_get_their_default_handling_back() -> None:
    restore_dispositions()
    found = [signal.getsignal(number) for number in IGNORED]
    assert found == [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]


def test_a_handler_is_left_alone() -> None:
    def handle(number: int, frame: object) -> None:
        """Does nothing."""

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        restore_dispositions()
        assert signal.getsignal(signal.SIGUSR1) is handle
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(support.missing() is not None, reason=str(support.missing()))
@pytest.mark.usefixtures("ignoring")
def test_the_fork_server_ignores_no_signal_that_a_strike_sends(tmp_path: Path) -> None:
    with ForkServer(tmp_path / "server.log") as server:
        server.wait_until_ready()
        status = Path(f"/proc/{server._process.pid}/status").read_text(encoding="ascii")
    (line,) = (one for one in status.splitlines() if one.startswith("SigIgn:"))
    mask = int(line.split()[1], 16)
    assert [number for number in IGNORED if mask >> (number - 1) & 1] == []
