"""Explains the choice of a start: the checkpoints found, the one taken, and the right one.

Pure, over evidence and the replayed directory.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.evidence.evidence import Evidence
from harness.judge.acknowledgements import acknowledged_steps
from harness.judge.event_logs import describe_step, raised_while_loading, ranks, resumed
from harness.judge.history import DirectoryState, FoundCheckpoint, History

_LONGEST_ERROR = 160


def describe_choice(evidence: Evidence, history: History, number: int) -> Iterator[str]:
    """Yields the directory before a run, and the decision of each rank."""
    state = history.starts(number)
    if history.layout.pointer is not None:
        yield f"`{history.layout.pointer}`: {_latest(state)}"
    found = sorted(state.found.items(), key=lambda one: one[1].step)
    for name, one in found:
        yield f"{name}: {_condition(one, history, number)}"
    if not found:
        yield "no directory carries the name of a checkpoint"
    acknowledged = _acknowledged(evidence, number)
    yield f"acknowledged to the job as durable: {_steps(acknowledged)}"
    yield from _decisions(evidence, history, number)


def _latest(state: DirectoryState) -> str:
    latest = state.latest
    if latest.state == "absent":
        return "not there"
    if latest.state == "checkpoint":
        defects = f", where {state.latest_defects[0]}" if state.latest_defects else ""
        return f"names {latest.name}{defects}"
    return latest.detail


def _condition(one: FoundCheckpoint, history: History, number: int) -> str:
    damaged = history.marks[number].damaged.get(one.identity)
    if damaged is not None:
        return f"damaged by an operator: {damaged} had been changed or removed"
    return f"torn: {'; '.join(one.defects[:2])}" if one.defects else "whole"


def _acknowledged(evidence: Evidence, number: int) -> set[int]:
    background = evidence.plan.in_background
    acknowledged: set[int] = set()
    for run in evidence.runs[:number]:
        acknowledged |= acknowledged_steps(run, background=background)
    return acknowledged


def _steps(steps: set[int]) -> str:
    if not steps:
        return "no step"
    word = "step" if len(steps) == 1 else "steps"
    return f"{word} {', '.join(str(step) for step in sorted(steps))}"


def _decisions(evidence: Evidence, history: History, number: int) -> Iterator[str]:
    """Yields the ranks' choices, equal ones together, and how they compare."""
    taken: dict[tuple[int | None, str | None], list[int]] = {}
    errors: dict[str, list[int]] = {}
    silent: list[int] = []
    for rank, event_log in enumerate(evidence.runs[number].event_logs):
        decision, error = resumed(event_log), raised_while_loading(event_log)
        if decision is not None:
            taken.setdefault((decision.step, decision.source), []).append(rank)
        elif error is not None:
            words = f"{error.type}: {error.message}".partition("\n")[0][:_LONGEST_ERROR]
            errors.setdefault(words, []).append(rank)
        else:
            silent.append(rank)
    for (step, source), alike in taken.items():
        place = "" if source is None else f" from {source}"
        why = _why(history, number, step, source)
        yield f"{ranks(alike)} took {describe_step(step)}{place}: {why}"
    for words, alike in errors.items():
        yield f"{ranks(alike)} took none and raised {words}"
    if silent:
        yield f"{ranks(silent)} ended before a decision"


def _why(history: History, number: int, step: int | None, source: str | None) -> str:
    state, sound = history.starts(number), history.sound(number)
    newest = max((one.step for one in sound.values()), default=None)
    if step is None:
        return "there was nothing to take" if newest is None else f"although step {newest} is whole"
    reasons = []
    if state.latest.name == source:
        reasons.append(f"what `{history.layout.pointer}` names")
    if source in state.found and source not in sound:
        reasons.append("which is not whole")
    if newest is not None and step == newest:
        reasons.append("the newest whole one")
    elif newest is not None and step < newest:
        reasons.append(f"older than step {newest}, which is whole")
    return ", ".join(reasons) or "under no name that a checkpoint has"
