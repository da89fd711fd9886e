"""`python -m harness fuzz`: known failures first, then new scenarios until the time is up."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from harness.plan.model import Implementation
from harness.report.failure import scenario_text
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_scenario
from harness.scenario.schema import Scenario
from harness.search.generate.attempt import Attempt, attempt
from harness.search.generate.coverage import read_coverage
from harness.search.generate.job import Areas
from harness.search.generate.stream import job_of
from harness.search.pool import Pool
from harness.search.scenarios import failure_file, glance, lacking, withdraw
from harness.search.shrink.reduce import reduce_failure
from harness.search.shrink.runner import Together
from harness.search.shrink.signature import Signature, signature_of
from harness.system.errors import HarnessError
from harness.trial import Bench
from harness.workspace import Workspace, open_workspace

_SHRUNK_ALIKE = 2
"""This many failures of one signature are shrunk in a session. Further ones are kept as they are:
they may be the same bug, and a shrink takes as long as a hundred new scenarios."""
_SAY_EVERY_S = 30.0
_SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzz:
    """The request."""

    minutes: float
    seed: int
    workers: int
    implementation: Implementation
    without: Areas = frozenset()


@dataclass(slots=True)
class Tally:
    """The results so far."""

    came: Counter[str] = field(default_factory=Counter)
    shrunk: Counter[Signature] = field(default_factory=Counter)
    known_red: int = 0
    seen: set[str] = field(default_factory=set)
    lacking: Counter[str] = field(default_factory=Counter)


def fuzz(asked: Fuzz) -> bool:
    """Report failures as they come, and at the end how much was tried; returns if none failed."""
    began, tally = time.monotonic(), Tally()
    end = began + 60 * asked.minutes
    workspace = open_workspace(failures=Path("failures").resolve())
    before = len(read_coverage(workspace.failures))
    with (
        closing(workspace),
        Pool(workspace, asked.workers, implementation=asked.implementation) as pool,
    ):
        for file, came in _known(pool, workspace):
            tally.known_red += came != "PASS" and not came.startswith(_SKIPPED)
            _say(f"known: {came if came != 'PASS' else 'passes now'}: {file}")
        for found in _attempts(asked, pool, end, tally):
            tally.came[found.came] += 1
            if found.came == "failed":
                _on_failure(found, Together(pool), workspace, tally)
            if found.came == "skipped":
                tally.lacking[found.reason] += 1
            if found.came == "broken":
                _say(f"the harness failed: generated-{found.number}: {found.reason}")
    cells = len(read_coverage(workspace.failures)) - before
    _say(summary(tally, time.monotonic() - began, cells))
    return not tally.came["failed"] and not tally.came["broken"] and not tally.known_red


def try_one(bench: Bench, seed: int, number: int, without: Areas) -> Attempt:
    """Make an attempt, even if the harness itself fails: a long session continues after that."""
    try:
        return attempt(bench, seed, number, without)
    except HarnessError as error:
        job = job_of(seed, number, without=without)
        return Attempt(number=number, scenario=job, came="broken", reason=str(error))


def _known(pool: Pool, workspace: Workspace) -> Iterator[tuple[Path, str]]:
    """Yields the failures of earlier sessions; skips unreadable files, which are not ours."""
    coming: list[tuple[Path, Future[str]]] = []
    for file in sorted(workspace.failures.glob("*.yaml")):
        try:
            scenario = read_scenario(file)
        except ScenarioError:
            continue
        if scenario.explore is None:
            coming.append((file, pool.submit(_outcome, scenario)))
    for file, future in coming:
        yield file, future.result()


def _outcome(bench: Bench, scenario: Scenario) -> str:
    if reason := lacking(bench, scenario):
        return f"{_SKIPPED}, {reason}"
    return str(signature_of(glance(bench, scenario)) or "PASS")


def _attempts(asked: Fuzz, pool: Pool, end: float, tally: Tally) -> Iterator[Attempt]:
    """Yields new scenarios, several under way at a time; the caller can use the pool meanwhile."""
    numbers = count(1)
    coming: set[Future[Attempt]] = set()
    said = time.monotonic()
    while True:
        while len(coming) < asked.workers and time.monotonic() < end:
            number = next(numbers)
            coming.add(pool.submit(try_one, asked.seed, number, asked.without))
        if not coming:
            return
        done, coming = wait(coming, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            sys.stderr.write(f"{_counts(tally)}, {max(0, end - said) / 60:.1f} minutes left\n")


def _on_failure(found: Attempt, runner: Together, workspace: Workspace, tally: Tally) -> None:
    """Shrink it, unless the same scenario or enough of its kind were shrunk."""
    assert found.signature is not None, "what failed has a signature"
    text = scenario_text(found.scenario)
    if text in tally.seen:
        return
    tally.seen.add(text)
    file = failure_file(found.scenario, workspace)
    _say(f"{found.signature}: generated-{found.number}: {found.scenario.name}")
    tally.shrunk[found.signature] += 1
    if tally.shrunk[found.signature] > _SHRUNK_ALIKE:
        _say(f"  kept as it is: python -m harness shrink {file}")
        return
    reduced = reduce_failure(found.scenario, found.signature, runner)
    _say(f"  {reduced}")
    if reduced.proof is None:
        _say(f"  kept as it is: {file}")
        return
    if failure_file(reduced.scenario, workspace) != file:
        withdraw(found.scenario, workspace)
    _say(f"{scenario_text(reduced.scenario)}  replay: {reduced.proof.replay}")


def summary(tally: Tally, seconds: float, cells: int) -> str:
    """Returns the last lines of a session."""
    number = sum(tally.came.values())
    vacuous = 100 * tally.came["vacuous"] / number if number else 0
    rate = 60 * number / seconds
    skipped = "".join(f"{times} skipped: {one}\n" for one, times in tally.lacking.items())
    return (
        f"{number} scenarios in {seconds / 60:.1f} minutes, {rate:.0f} a minute: {_counts(tally)}\n"
        f"{vacuous:.0f} % proved nothing, because one of their strikes never fired\n{skipped}"
        f"{cells} cells struck for the first time: python -m harness coverage"
    )


def _counts(tally: Tally) -> str:
    words = [f"{tally.came[word]} {word}" for word in ("passed", "failed", "vacuous")]
    words += [f"{tally.came[word]} {word}" for word in ("skipped", "broken") if tally.came[word]]
    return ", ".join(words)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
