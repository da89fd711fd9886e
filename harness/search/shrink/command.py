"""`python -m harness shrink`: finds the smallest scenario that fails as a file or a run did."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from harness.evidence.read import read_evidence
from harness.judge.judge import judge
from harness.plan.model import Implementation
from harness.plan.unmake import unmake_plan
from harness.report.failure import scenario_text
from harness.scenario.read import read_scenario
from harness.scenario.schema import Scenario
from harness.search.pool import Pool
from harness.search.scenarios import failure_file, glance
from harness.search.shrink.reduce import reduce_failure
from harness.search.shrink.runner import Together
from harness.search.shrink.signature import Signature, signature_of
from harness.trial import Bench
from harness.workspace import open_workspace

_LOOKS = 3
"""A file is reported to pass after this many passing runs."""


def shrink_place(
    place: Path, *, implementation: Implementation, workers: int, seconds: float
) -> bool:
    """Shrink and report the result; returns whether there was a failure and a file now shows it.

    Raises ScenarioError, or OSError and ValueError if the directory is not one of a run.
    """
    if place.is_dir():
        evidence = read_evidence(place.resolve())
        if evidence.given is not None:
            raise ValueError("it began with what earlier runs had left, which no scenario says")
        scenario, signature = unmake_plan(evidence.plan), signature_of(judge(evidence))
        implementation = evidence.plan.implementation
    else:
        scenario, signature = read_scenario(place), None
    workspace = open_workspace(failures=Path("failures").resolve())
    with closing(workspace), Pool(workspace, workers, implementation=implementation) as pool:
        signature = signature or _seen(scenario, pool)
        if signature is None:
            return _say(f"PASS in {_LOOKS} runs: there is nothing to shrink\n", is_done=False)
        _say(f"{signature}: {scenario.name}\n", is_done=True)
        reduced = reduce_failure(scenario, signature, Together(pool), seconds=seconds)
    if reduced.proof is None:
        return _say(f"{reduced}\n", is_done=False)
    file = failure_file(reduced.scenario, workspace)
    text = f"{reduced}\n\n{scenario_text(reduced.scenario)}\n{file}\n{reduced.proof.replay}\n"
    return _say(text, is_done=True)


def _seen(scenario: Scenario, pool: Pool) -> Signature | None:
    for _ in range(_LOOKS):
        signature = pool.submit(_signature, scenario).result()
        if signature is not None:
            return signature
    return None


def _signature(bench: Bench, scenario: Scenario) -> Signature | None:
    return signature_of(glance(bench, scenario))


def _say(text: str, *, is_done: bool) -> bool:
    sys.stdout.write(text)
    sys.stdout.flush()
    return is_done
