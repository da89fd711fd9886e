"""The supervisor's implementation of `harness.faults.effects`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.faults.actions import Action
from harness.faults.effects import Healing, PlannedStrike
from harness.run.late_operator import LateOperator
from harness.run.launch.launch import Launch
from harness.run.links import Links
from harness.run.second_job import SecondRanks
from harness.run.signals import Signals
from harness.run.storage_faults import StorageFaults
from harness.run.time_limit import LimitSignal
from harness.run.trace import Trace
from harness.system.errors import HarnessError


@dataclass(slots=True, kw_only=True)
class RunEffects:
    """Carries out faults, and keeps track of those that last. `now_s` is the clock of the run.

    `cut` lets nothing more reach the disk under the directory; `links` exist if ranks are spread
    over nodes.
    """

    trace: Trace
    launch: Launch
    late: LateOperator
    second: SecondRanks
    now_s: Callable[[], float]
    cut: Callable[[str], None]
    signals: Signals = field(default_factory=Signals)
    storage: StorageFaults = field(default_factory=StorageFaults)
    limit: LimitSignal = field(default_factory=LimitSignal)
    links: Links | None = None

    def record_fired(self, strike: PlannedStrike) -> None:
        self.trace.strike(strike.id, strike.ranks)

    def kill(self, strike: PlannedStrike) -> None:
        self._hit(strike, self.signals.kill(strike))

    def send(
        self,
        strike: PlannedStrike,
        number: signal.Signals,
        *,
        kill_after_s: float | None = None,
        wake_after_s: float | None = None,
    ) -> None:
        kill_at_s = None if kill_after_s is None else self.now_s() + kill_after_s
        found = self.signals.send(strike, number, kill_at_s=kill_at_s, wake_after_s=wake_after_s)
        self._hit(strike, found)

    def cut_power(self, journal: str) -> None:
        self.trace.written.settle()
        self.cut(journal)

    def act(self, strike: PlannedStrike, action: Action) -> None:
        self.late.act(strike, action)

    def start_second_job(self, strike: PlannedStrike) -> None:
        self.second.begin(strike)
        self.launch.start_second()

    def expire(self, strike: PlannedStrike) -> None:
        self.launch.expire()
        self.limit.begin(strike)

    def cut_link(self, strike: PlannedStrike, node: int, seconds: float | None) -> None:
        self._links().cut(strike, node, seconds)

    def slow_link(self, node: int, kbit_s: int) -> None:
        self._links().slow(node, kbit_s)

    def fail(
        self, strike: PlannedStrike, error: str, left: int | None, until: Healing | None
    ) -> None:
        self.storage.fail(strike, error, left, until)

    def _links(self) -> Links:
        if self.links is None:
            raise HarnessError("the ranks of this run are on one node, which has no link")
        return self.links

    def _hit(self, strike: PlannedStrike, ranks: tuple[int, ...]) -> None:
        if ranks:
            self.trace.strike(strike.id, ranks)
