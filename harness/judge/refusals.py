"""Checks starts that must be refused: by every rank, with one error, before anything changes.

A scenario asks for it with `refused`, an expression that the error must match. The state that must
not change is the state of each rank, as the rank records it, every checkpoint on disk, and
`latest`. Any start can remove leftovers of dead runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Raised, Refused
from harness.judge.event_logs import (
    describe_step,
    raised_while_loading,
    ranks,
    records,
    resumed,
    resumed_steps,
)
from harness.judge.history import DirectoryState, History
from harness.layouts.tree import Resolved


def is_asked(evidence: Evidence) -> bool:
    """Whether some start must be refused."""
    return any(run.refused is not None for run in evidence.plan.runs)


def not_refused(evidence: Evidence, history: History | None) -> Iterator[str]:
    """Yields ranks that resumed nevertheless, and what changed before the error came."""
    for number, run in _refused_runs(evidence):
        for rank, event_log in enumerate(run.event_logs):
            decision = resumed(event_log)
            if decision is not None:
                yield f"run {number}, rank {rank} resumed from {describe_step(decision.step)}"
            for record in records(event_log, Refused):
                if record.changed:
                    more = len(record.changed) - 1
                    change = record.changed[0] + (f" (and {more} more)" if more else "")
                    yield f"run {number}, rank {rank} raised, but had changed {change}"
        # One that resumed goes on to save: what it changes then is no finding of its own.
        if history is not None and not resumed_steps(run):
            changes = _changes(history.starts(number), history.ends[number])
            if changes:
                yield f"run {number} did not resume, but changed the directory: {changes}"


def differing_errors(evidence: Evidence) -> Iterator[str]:
    """Yields ranks that ended without an error, with different ones, or with an unexpected one."""
    for number, run in _refused_runs(evidence):
        if any(resumed(event_log) is not None for event_log in run.event_logs):
            continue
        raised = [raised_while_loading(event_log) for event_log in run.event_logs]
        expected = evidence.plan.runs[number].refused or ""
        yield from (f"run {number}: {one}" for one in other_words(raised, expected))


def other_words(raised: Sequence[Raised | None], expected: str) -> Iterator[str]:
    """Describes errors, one of each rank, that are not all the same, or not the expected one."""
    errors: dict[str, list[int]] = {}
    for rank, one in enumerate(raised):
        words = "no error" if one is None else f"{one.type}: {one.message}"
        errors.setdefault(words, []).append(rank)
    found = "; ".join(f"{ranks(alike)}: {_first_line(words)}" for words, alike in errors.items())
    if len(errors) > 1:
        yield f"the ranks raised different errors: {found}"
    if any(words == "no error" or not re.search(expected, words) for words in errors):
        yield f"expected an error that matches {expected!r}; found: {found}"


def _refused_runs(evidence: Evidence) -> Iterator[tuple[int, RunEvidence]]:
    for number, run in enumerate(evidence.runs):
        if evidence.plan.runs[number].refused is not None and not run.processes.hung:
            yield number, run


def _changes(before: DirectoryState, after: DirectoryState) -> str:
    """Describes the differences between the checkpoints and `latest` of two states."""
    old = {name: (one.identity, one.version) for name, one in before.found.items()}
    new = {name: (one.identity, one.version) for name, one in after.found.items()}
    groups = (
        ("is gone", old.keys() - new.keys()),
        ("is new", new.keys() - old.keys()),
        ("is changed", {name for name in old.keys() & new.keys() if old[name] != new[name]}),
    )
    said = [f"{name} {verb}" for verb, names in groups for name in sorted(names)]
    if before.latest != after.latest:
        said.append(f"`latest` is {_tell(after.latest)}, not {_tell(before.latest)}")
    return ", ".join(said)


def _tell(latest: Resolved) -> str:
    return latest.name or latest.state


def _first_line(words: str) -> str:
    return words.partition("\n")[0][:160]
