"""Shows the operations around the strikes, and around those that reveal a violation."""

from __future__ import annotations

from collections.abc import Iterator

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.operation import Fired, Operation
from harness.judge.judge import Judgement

_BEFORE = 6
_AFTER = 4
# Room for four windows; more of them would repeat the same.
_MOST_LINES = 46
_LONGEST_PATH = 74


def around(evidence: Evidence, judgement: Judgement) -> Iterator[str]:
    """Yields one line per operation; marks strikes and offending operations."""
    offending = {
        reference
        for verdict in judgement.verdicts
        if verdict.state == "violated"
        for reference in verdict.operations
    }
    lines: list[str] = []
    for number, run in enumerate(evidence.runs):
        marked = {index for which, index in offending if which == number}
        lines += _run_lines(number, run, marked)
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"  ... {len(lines) - _MOST_LINES} more lines; all are in trace.jsonl"


def _run_lines(number: int, run: RunEvidence, marked: set[int]) -> Iterator[str]:
    points = sorted({*(fired.index for fired in run.fired), *marked})
    if not points:
        return
    yield f"  run {number}"
    # The last position is after all operations: a strike can be what came last.
    shown: set[int] = set()
    for point in points:
        shown |= set(range(point - _BEFORE, point + _AFTER + 1))
    previous = -1
    for place in sorted(one for one in shown if 0 <= one <= len(run.operations)):
        if place > previous + 1:
            yield "        ..."
        end = place == len(run.operations)
        where = "after the last operation" if end else "before this"
        yield from (_strike_line(one, where) for one in run.fired if one.index == place)
        if place < len(run.operations):
            operation = run.operations[place]
            yield _operation_line(operation, offending=operation.index in marked)
        previous = place


def _strike_line(fired: Fired, where: str) -> str:
    word = "rank" if len(fired.ranks) == 1 else "ranks"
    ranks = ", ".join(str(rank) for rank in fired.ranks)
    known = ("kill", "sigterm", "power_cut")
    fault = next((one for one in known if f".{one}-" in fired.strike), "strike")
    fault = fired.then or fault
    return f"    >>> {fault} {word} {ranks} {where} ({fired.strike}, {fired.time_s:.3f} s)"


def _operation_line(operation: Operation, *, offending: bool) -> str:
    name = _short(operation.path)
    if operation.target is not None:
        name += f" -> {_short(operation.target)}"
    size = f" {operation.size} bytes" if operation.kind in ("write", "truncate") else ""
    if operation.kind == "write":
        size += f" at {operation.offset}"
    save = "" if operation.save is None else f"save {operation.save}"
    place = "/".join(part for part in (save, operation.phase) if part)
    failed = f" failed with errno {operation.error}" if operation.error else ""
    mark = "!!!" if offending else "   "
    if operation.kind == "cut":
        return f"    {mark} {operation.index:>5} power is back: what the disk holds is listed here"
    return (
        f"    {mark} {operation.index:>5} rank {operation.rank} {operation.kind:<8} {name}{size}"
        f"{failed}" + (f"  [{place}]" if place else "")
    )


def _short(path: str) -> str:
    half = _LONGEST_PATH // 2 - 2
    return path if len(path) <= _LONGEST_PATH else f"{path[:half]}...{path[-half:]}"
