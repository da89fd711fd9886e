"""Hypothesis strategies over the whole scenario language, for tests of code that reads scenarios.

    @given(scenarios())
    def test_my_reader_takes_it(scenario: Scenario) -> None: ...

They draw with the same code as `fuzz` and `--generate`, but run nothing: the points are those of a
save by any checkpointer, and may not exist in a real run. Hypothesis shrinks to the simplest
scenario that `draw_scenario` can draw. Real runs are shrunk by `harness.search.shrink`: an example
that costs a second calls for another order of attempts, and for two at once.
"""

from __future__ import annotations

from functools import cache
from random import Random

from hypothesis import strategies as st

from harness.faults.point import Point
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.scenario.schema import Scenario
from harness.search.generate.candidates import CandidatePoint, Candidates
from harness.search.generate.draw import draw_scenario
from harness.search.generate.job import Areas, draw_job
from harness.words import OPERATIONS, SAVE_PHASES

_KINDS = tuple(kind for kind in OPERATIONS if kind not in ("read", "sync"))
_LAYOUT = LAYOUTS[DEFAULT]
_FILES = tuple(sorted({_LAYOUT.shards, _LAYOUT.summary, *_LAYOUT.pickles}))


def jobs(*, without: Areas = frozenset()) -> st.SearchStrategy[Scenario]:
    """Draws one run that nothing strikes."""
    return _randoms().map(lambda random: draw_job(random, without=without))


def scenarios(*, without: Areas = frozenset()) -> st.SearchStrategy[Scenario]:
    """Draws two to four runs, struck and tampered with."""
    return _randoms().map(lambda random: _draw(random, without))


def _randoms() -> st.SearchStrategy[Random]:
    return st.randoms(use_true_random=False)


def _draw(random: Random, without: Areas) -> Scenario:
    job = draw_job(random, without=without)
    return draw_scenario(random, job, typical_candidates(job.world.size), without=without)


@cache
def typical_candidates(ranks: int, *, saves: int = 4) -> Candidates:
    """Returns every kind of operation in every phase of every save, and one before the first."""
    candidates = [
        CandidatePoint(named=at.model_copy(update={"path": f"{_LAYOUT.any_name}/a"}), counted=at)
        for rank in range(ranks)
        for save in range(1, saves + 1)
        for phase in SAVE_PHASES
        for kind in _KINDS
        for at in (Point(rank=rank, save=save, phase=phase, operation=kind),)
    ]
    first = Point(rank=0, operation="open", path=".lock")
    return Candidates(
        layout=_LAYOUT,
        candidates=(CandidatePoint(named=first, counted=None), *candidates),
        files=_FILES,
        leftovers=("link", "staging"),
    )
