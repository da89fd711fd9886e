"""Who waits for the signal of a time limit goes on when every rank has it."""

from __future__ import annotations

from harness.run.time_limit import LimitSignal
from tests.harness.strikes import strike


def test_a_rank_goes_on_when_the_last_rank_has_its_signal() -> None:
    limit, gone_on = LimitSignal(), []
    one = strike("time_limit", ranks=(0, 1, 2), step=5)
    limit.begin(one)
    limit.hold(lambda: gone_on.append(0))

    assert limit.signalled(1) is None
    assert limit.signalled(0, 1) is None
    assert gone_on == []
    assert limit.signalled(2) is one
    limit.release()
    assert gone_on == [0]


def test_a_signal_without_a_time_limit_is_nobody_s_business() -> None:
    limit = LimitSignal()
    assert limit.signalled(0) is None


def test_a_second_signal_does_not_strike_again() -> None:
    limit = LimitSignal()
    limit.begin(strike("time_limit", ranks=(0,), step=5))
    assert limit.signalled(0) is not None
    assert limit.signalled(0) is None
