"""A small catalogue, and cells as a run would have left them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.mutants.catalogue import Catalogue, Control
from harness.mutants.cell import MutantCell
from harness.mutants.given import Given
from harness.scenario.schema import Run, Scenario

KILLED, TORN, GONE = "sync/killed.yaml", "sync/torn.yaml::async", "at_rest/gone.yaml"
NAMES = (KILLED, TORN, GONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A bug of this catalogue."""

    implementation: str
    scenario: str
    base: str = "correct:Plain"
    source: str = ""
    categories: tuple[str, ...] = ()
    caught_by: str = "latest_durable"
    outcome: str = "HARD_FAIL"


EARLY = Small(
    implementation="wrong:Early", scenario=KILLED, source="A01", categories=("retention", "async")
)
LATE = Small(implementation="wrong:Late", scenario=TORN, caught_by="nothing_lost")
CATALOGUE = Catalogue(
    bugs=(EARLY, LATE),
    correct=(
        Control(implementation="correct:Plain", leaves_out={"at_rest/*": "it verifies nothing"}),
        Control(implementation="correct:Careful"),
    ),
)


def given(*names: str) -> tuple[Given, ...]:
    """Scenarios of these names."""
    scenario = Scenario(name="a", runs=(Run(until_step=2),))
    return tuple(Given(name=name, scenario=scenario) for name in names)


def cell(manager: str, scenario: str, outcome: str, *broken: str) -> MutantCell:
    """What came of one."""
    return MutantCell(manager=manager, scenario=scenario, outcome=outcome, broken=broken)
