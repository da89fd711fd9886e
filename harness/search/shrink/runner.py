"""Runners that decide whether scenarios fail alike: in this process, or in several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.prove import Proof, settle
from harness.scenario.schema import Scenario
from harness.search.pool import Pool
from harness.search.scenarios import glance, source_of, try_scenario
from harness.search.shrink.signature import Signature, shows
from harness.trial import Bench

SILENCE_S = 10.0
"""Half of the silence allowed elsewhere (`harness/budget.py`): a hanging candidate should not use
up the time of the others. One that was only slow is found out when the smallest one runs with the
usual budgets."""


class Runner(Protocol):
    """Answers by real runs."""

    @property
    def at_once(self) -> int:
        """Returns how many scenarios to ask about at once."""

    def shows(self, some: Sequence[Scenario], signature: Signature) -> Sequence[bool]:
        """Returns which of them fail like that."""

    def report(self, scenario: Scenario, signature: Signature) -> Proof | None:
        """Run it once more and save the failure; returns None if it did not fail like that."""


class Alone:
    """Runs in this process, one after the other."""

    at_once = 1

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def shows(self, some: Sequence[Scenario], signature: Signature) -> Sequence[bool]:
        """Returns which of them fail like that."""
        return [_shows_again(self._bench, one, signature) for one in some]

    def report(self, scenario: Scenario, signature: Signature) -> Proof | None:
        """Run it once more and save the failure."""
        return _report_again(self._bench, scenario, signature)


class Together:
    """Runs in the workers of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.at_once = pool.workers

    def shows(self, some: Sequence[Scenario], signature: Signature) -> Sequence[bool]:
        """Returns which of them fail like that."""
        coming = [self._pool.submit(_shows_again, one, signature) for one in some]
        return [future.result() for future in coming]

    def report(self, scenario: Scenario, signature: Signature) -> Proof | None:
        """Run it once more and save the failure."""
        return self._pool.submit(_report_again, scenario, signature).result()


def _shows_again(bench: Bench, scenario: Scenario, signature: Signature) -> bool:
    """Whether the scenario fails like that; nothing is left of its run."""
    return shows(glance(bench, scenario, silence_s=SILENCE_S), signature)


def _report_again(bench: Bench, scenario: Scenario, signature: Signature) -> Proof | None:
    """Run the scenario with the usual budgets, and save it if it fails like that."""
    trial = try_scenario(bench, scenario)
    if shows(trial.judgement, signature):
        return settle(trial, source_of(scenario))
    trial.drop()
    return None
