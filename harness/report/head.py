"""The head of a failure file, which states its verdict: written and read side by side.

    # HARD_FAIL
    # broken: whole_or_absent, nothing_lost
    # resumed from: step 2
    # whole_or_absent is violated: A directory named `step_N` is a committed checkpoint. ...
    # implementation: my.module:Manager in /code

A replay compares the first three lines; the rest is for people. A file without them is a scenario
like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from harness.judge.comparison import Known, know
from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome
from harness.plan.model import Implementation

_LONGEST_LINE = 160
_BROKEN, _RESUMED, _IMPLEMENTATION = "# broken: ", "# resumed from: ", "# implementation: "
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureHead:
    """The contents of a head. `implementation` is the name of the implementation."""

    known: Known
    implementation: str


def head_lines(judgement: Judgement, implementation: Implementation | None) -> Iterator[str]:
    """Yields the head of a new failure file, one comment line each."""
    known = know(judgement)
    yield f"# {known.outcome}"
    yield _BROKEN + (", ".join(known.broken) or _NOTHING)
    yield _RESUMED + ("; ".join(known.resumed) or _NOTHING)
    yield from _sentences(judgement)
    yield from (f"# {one}"[:_LONGEST_LINE] for one in judgement.left_out)
    if implementation is not None and implementation != Implementation():
        place = f" in {implementation.path}" if implementation.path else ""
        yield f"{_IMPLEMENTATION}{implementation.name}{place}"


def read_head(text: str) -> FailureHead | None:
    """Reads the head of a file; returns None if it is not a failure file."""
    lines = list(takewhile(lambda line: line.startswith("#"), text.splitlines()))
    outcome = lines[0].removeprefix("# ") if lines else ""
    broken, resumed = _list(lines, _BROKEN, ", "), _list(lines, _RESUMED, "; ")
    if outcome not in set(Outcome) or broken is None or resumed is None:
        return None
    named = [line.removeprefix(_IMPLEMENTATION) for line in lines if _IMPLEMENTATION in line]
    return FailureHead(
        known=Known(outcome=Outcome(outcome), broken=broken, resumed=resumed),
        implementation=re.split(r" in ", named[-1])[0] if named else Implementation().name,
    )


def _list(lines: list[str], key: str, separator: str) -> tuple[str, ...] | None:
    for line in lines:
        if line.startswith(key):
            text = line.removeprefix(key).strip()
            return () if text == _NOTHING else tuple(text.split(separator))
    return None


def _sentences(judgement: Judgement) -> list[str]:
    lines = [f"{one.name}: {one.details[0]}" for one in judgement.guards if not one.passed]
    for verdict in judgement.verdicts:
        if verdict.is_red():
            lines.append(f"{verdict.property} is {verdict.state}: {verdict.sentence}")
            lines += verdict.details[:2]
    # One comment line for each line of text, so that none escapes the comment.
    return [f"# {part}"[:_LONGEST_LINE] for line in lines for part in line.splitlines()]
