"""What the catalogue says of a mutant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.mutants.sources import CATEGORIES

PACKAGE = "kempnerforge.checkpoint.manager:CheckpointManager"
SIMPLE = "tests.harness.simple_manager:SimpleManager"
COPIES = "tests.mutants.copies:Copies"

_BASES = {
    PACKAGE: (
        "wrapping dealing "
        "arranged background ending resting:DropsTheLastStage resting:TakesAnyDegree "
        "resting:TrustsEverybody "
        "storage:SaysNothing storage:NeverRecovers storage:OneRankKnows storage:TriesForEver"
    ),
    COPIES: "choosing:EachStageJudgesItself resting:VerifiesNothing",
}
"""What is not changed in the simple manager, by whole modules or by the manager."""

ENDS_IN_ORDER = "undisturbed_runs_end"
"""The guard that catches a bug which ends the job although nothing struck it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One defect. `source` is its number in the collection of real bugs, or several, or empty.

    `violates` names a property or a guard; it is empty where the guard is that the run did not end
    in order. `also` are categories that its source does not have, or that it has without a source.
    """

    manager: str
    source: str
    scenario: str
    violates: str
    outcome: str
    also: str = ""

    @property
    def implementation(self) -> str:
        """As `--implementation` takes it."""
        return f"tests.mutants.{self.manager}"

    @property
    def base(self) -> str:
        """The control that it changes."""
        names = {self.manager, self.manager.partition(":")[0]}
        return next((base for base, of in _BASES.items() if names & {*of.split()}), SIMPLE)

    @property
    def caught_by(self) -> str:
        """The property or guard that names it."""
        return self.violates or ENDS_IN_ORDER

    @property
    def categories(self) -> tuple[str, ...]:
        """Of its sources and its own, each once."""
        found = [one for number in self.source.split() for one in CATEGORIES[number]]
        return tuple(dict.fromkeys([*found, *self.also.split()]))

    def __str__(self) -> str:
        return self.manager.partition(":")[2]


_COLD_S = 900
"""The fence for a test whose ranks boot cold, once or twice, on a machine that others use too."""


def fenced(*values: object, scenario: str) -> Any:
    """The values of a test that runs a scenario, with a later fence where its ranks boot cold."""
    cold = scenario.startswith("launchers/")
    return pytest.param(*values, marks=[pytest.mark.timeout(_COLD_S)] if cold else [])


def bug(
    manager: str, source: str, scenario: str, violates: str, outcome: str, also: str = ""
) -> Mutant:
    """A line of the catalogue."""
    return Mutant(
        manager=manager,
        source=source,
        scenario=scenario,
        violates=violates,
        outcome=outcome,
        also=also,
    )
