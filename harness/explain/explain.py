"""An account of a run, to be read from top to bottom in a minute by whoever is on call.

It says what is broken and since which operation; what every rank was doing when the strike fell;
what was not durable at that time; what the next start found, what it took and why; and the first
bytes that differ. Pure, over evidence: nothing is run, and only the run directory is read.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from harness.evidence.evidence import Evidence
from harness.explain.choice import describe_choice
from harness.explain.differences import describe_differences
from harness.explain.moment import describe_not_durable, describe_operation, describe_ranks
from harness.judge.history import replay
from harness.judge.judge import Judgement, judge
from harness.report.text import describe_job, describe_stacks

_WIDTH = 118
_MOST_DETAILS = 3
_MOST_MOMENTS = 3


def explain(evidence: Evidence) -> str:
    """Returns the whole text."""
    judgement = judge(evidence)
    lines = [f"{judgement.outcome} {evidence.plan.name}", _what_ran(evidence)]
    lines += _part("what is broken", _broken(evidence, judgement))
    lines += _part("where the ranks hung", describe_stacks(evidence))
    lines += _part("what was not judged", iter(judgement.left_out))
    for title, number, index in _moments(evidence, judgement):
        lines += _part(title, describe_ranks(evidence.runs[number], index))
        lines += _part("not durable then", describe_not_durable(evidence, number, index))
    lines += _choices(evidence)
    lines += _part("where it differs from the reference", describe_differences(evidence))
    lines += _part(
        "again",
        iter(
            (
                f"judge it: python -m harness judge {evidence.directory}",
                f"run it:   python -m harness replay {evidence.directory}",
            )
        ),
    )
    return "\n".join(lines)


def _what_ran(evidence: Evidence) -> str:
    ended = ", ".join(
        f"run {number} {list(run.processes.exits)}" for number, run in enumerate(evidence.runs)
    )
    return f"{describe_job(evidence.plan)}; exit statuses: {ended}"


def _broken(evidence: Evidence, judgement: Judgement) -> Iterator[str]:
    """Yields failed guards and violated properties, each with its first details."""
    for guard in judgement.guards:
        if not guard.passed:
            yield f"{guard.name}: {guard.sentence}"
            yield from (f"  - {one}" for one in guard.details[:_MOST_DETAILS])
    for verdict in judgement.verdicts:
        if not verdict.is_red():
            continue
        yield f"{verdict.property} is {verdict.state}: {verdict.sentence}"
        yield from (f"  - {one}" for one in verdict.details[:_MOST_DETAILS])
        for number, index in verdict.operations[:1]:
            operations = evidence.runs[number].operations
            if 0 <= index < len(operations):
                one = operations[index]
                yield f"  made so by run {number}, rank {one.rank}: {describe_operation(one)}"


def _moments(evidence: Evidence, judgement: Judgement) -> list[tuple[str, int, int]]:
    """Returns the strikes, or without any the operation that broke the first sentence."""
    found = [
        (
            f"run {number}: {strike.strike} struck after {strike.index} operations",
            number,
            strike.index,
        )
        for number, run in enumerate(evidence.runs)
        for strike in run.fired
        if strike.then is None
    ]
    deciding = sorted(judgement.verdicts, key=lambda one: one.outcome is not judgement.outcome)
    offending = [one for verdict in deciding for one in verdict.operations]
    if not found and offending:
        number, index = offending[0]
        found = [(f"run {number}: when that became true", number, index + 1)]
    return found[:_MOST_MOMENTS]


def _choices(evidence: Evidence) -> Iterator[str]:
    try:
        history = replay(evidence)
    # The judgement above says that the operations cannot be replayed, and why.
    except Exception:  # noqa: BLE001 - the rest of the account does not need them
        return
    for number in range(1, len(evidence.runs)):
        at_rest = evidence.at_rest.get(number)
        operator = [
            f"operator: {done.action} {', '.join(done.paths) or done.problem}"
            for done in (at_rest.done if at_rest is not None else ())
        ]
        title = f"run {number} found and chose"
        yield from _part(title, iter([*operator, *describe_choice(evidence, history, number)]))


def _part(title: str, lines: Iterator[str]) -> list[str]:
    """Returns a title and its lines, long ones folded; nothing if there are none."""
    found = [
        folded
        for line in lines
        for folded in textwrap.wrap(
            line,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    return ["", f"{title}:", *found] if found else []
