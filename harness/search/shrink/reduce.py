"""Reduces one failure: reproduces it, shrinks it, and saves the smallest that still shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.prove import Proof
from harness.scenario.schema import Scenario
from harness.search.shrink.runner import Runner
from harness.search.shrink.shrink import Shrunk, shrink
from harness.search.shrink.signature import Signature

_ATTEMPTS = 3
"""A failure that depends on which rank comes first shows in one run of several."""

SHRINK_S = 110.0
"""A person waits a minute or two; the last runs, which save the failure, come on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The current form of the failure. `proof` is None if it did not show again."""

    scenario: Scenario
    proof: Proof | None
    shrunk: Shrunk | None
    seconds: float

    def __str__(self) -> str:
        if self.shrunk is None or self.proof is None:
            return f"did not show again in {_ATTEMPTS} runs"
        more = "" if self.shrunk.is_complete else ", time was over"
        return f"shrunk by {self.shrunk.tried} candidates in {self.seconds:.0f} s{more}"


def reduce_failure(
    start: Scenario, signature: Signature, runner: Runner, *, seconds: float = SHRINK_S
) -> Reduced:
    """Finds the smallest scenario that shows the signature; saves its failure file and run."""
    began = time.monotonic()
    shrunk, proof, found = None, None, start
    if _shows_again(start, signature, runner):
        shrunk = shrink(
            start,
            lambda some: runner.shows(some, signature),
            at_once=runner.at_once,
            is_over=lambda: time.monotonic() - began > seconds,
        )
        for found in reversed(shrunk.kept):
            proof = runner.report(found, signature)
            if proof is not None:
                break
    spent = time.monotonic() - began
    return Reduced(scenario=found, proof=proof, shrunk=shrunk, seconds=spent)


def _shows_again(start: Scenario, signature: Signature, runner: Runner) -> bool:
    return any(any(runner.shows([start], signature)) for _ in range(_ATTEMPTS))
