"""Large scenarios that mutants fail, as they could be drawn, and how small they become.

Each start holds much that has nothing to do with the bug. `Smallest` was found by thinking about
the bug, not by shrinking: it says what has to be left at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.judge.outcome import Outcome
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from harness.search.shrink.signature import Signature
from tests.mutants.by_fault import BY_FAULT
from tests.mutants.catalogue import MUTANTS, Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Smallest:
    """Ranks, runs, faults and actions together, and the steps of all runs."""

    ranks: int
    runs: int
    happenings: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Large:
    """A mutant, the scenario that it fails, and what is known to be enough."""

    bug: Mutant
    scenario: Scenario
    smallest: Smallest

    @property
    def signature(self) -> Signature:
        """How it fails."""
        return Signature(outcome=Outcome(self.bug.outcome), broken=self.bug.violates)

    def __str__(self) -> str:
        return str(self.bug)


def measure(scenario: Scenario) -> Smallest:
    """The size of a scenario in the same words."""
    worlds = [scenario.world, *(run.world for run in scenario.runs if run.world is not None)]
    return Smallest(
        ranks=max(world.size for world in worlds),
        runs=len(scenario.runs),
        happenings=sum(len(run.faults) + len(run.before) for run in scenario.runs),
        steps=max(run.until_step for run in scenario.runs),
    )


def _start(*, first: str = "", third: str = "", freeze: str = "", keep: int = 3) -> str:
    """The scaffold; `first` and `third` add what the bug needs to show."""
    vlm = "preset: tiny_vlm, " if freeze else ""
    return f"""\
name: "a large scenario"
seed: 41
world: {{dp_shard: 3}}
model: {{{vlm}layers: 3, dim: 16}}
scheduler: {{warmup_steps: 5}}
data: {{samples: 66, batch_size: 2, num_workers: 1}}
checkpoint: {{interval: 3, keep_last_n: {keep}, on_error: go_on}}
{freeze}
runs:
  - until_step: 11
    faults:
      - {{delay: {{rank: 1, seconds: 0.2}}, at: {{save: 1, phase: flush, operation: write}}}}
      {first}
  - until_step: 12
    faults: [{{kill: {{rank: all}}, at: {{step: 11}}}}]
  - until_step: 15
    before: [{{foreign: {{path: notes.txt, kind: file}}}}{third}]
    faults: [{{stop: {{rank: 0, seconds: 0.2}}, at: {{save: 1, phase: flush}}}}]
  - until_step: 16
"""


_FREEZE = """\
freeze:
  base: [{module: vision_encoder}]
  schedule: [{start_step: 5, specs: [{module: vision_encoder, frozen: false}]}]
"""
_FAILS = "- {fail: {rank: 1, error: ENOSPC}, at: {save: 2, phase: flush, operation: write, nth: 2}}"
_HANDS = """\
- {operator: {foreign: {path: mine, kind: directory}}, at: {rank: 1, step: 5}}
      - {operator: {latest: {step: 3}}, at: {rank: 2, step: 8}}"""
_SHORT = '- {short_write: {rank: 0}, at: {save: 2, operation: write, path: "*metadata.json"}}'


def _large(name: str, text: str, *smallest: int) -> Large:
    (bug,) = (one for one in (*MUTANTS, *BY_FAULT) if str(one) == name)
    ranks, runs, happenings, steps = smallest
    return Large(
        bug=bug,
        scenario=check_source(parse_source(text, shown=name), gpus=0),
        smallest=Smallest(ranks=ranks, runs=runs, happenings=happenings, steps=steps),
    )


LARGE = (
    # A save is enough: every instant of it is judged.
    _large("WritesInPlace", _start(), 1, 1, 0, 2),
    _large("NeverSyncs", _start(), 1, 1, 0, 2),
    # As many saves as retention keeps by default, and one more.
    _large("KeepsEverything", _start(), 1, 1, 0, 6),
    _large("KeepsOneTooFew", _start(), 1, 1, 0, 4),
    # A resume, and one step after it.
    _large("ForgetsGenerators", _start(), 1, 2, 0, 3),
    _large("ForgetsLoader", _start(), 1, 2, 0, 3),
    # Two ranks whose generators differ.
    _large("GeneratorsOfRankZero", _start(), 2, 2, 0, 3),
    # A module that is set free has moments from the next step on.
    _large("FreezeStateOfTheNextSave", _start(freeze=_FREEZE), 1, 1, 0, 4),
    # The save that fails, and the next one.
    _large("NeverRecovers", _start(first=_FAILS), 1, 1, 1, 4),
    _large("TakesHalfForAll", _start(first=_SHORT), 1, 1, 1, 2),
    # A save, an operator, a start.
    _large("FollowsLatestOnly", _start(third=", {latest: {becomes: absent}}"), 1, 2, 1, 2),
    _large("TidiesUp", _start(), 1, 2, 1, 4),
    # Two saves, an operator at work on what they left, and the save that should have put it right.
    _large("LeavesLatestToOthers", _start(first=_HANDS, keep=2), 1, 1, 1, 6),
    _large("AbsoluteLatest", _start(), 1, 1, 0, 2),
    _large("LosesTokens", _start(), 1, 2, 0, 2),
)
