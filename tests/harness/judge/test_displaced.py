"""What is said of operations in the place of a directory that was moved away."""

from __future__ import annotations

import dataclasses

from harness.evidence.evidence import Evidence
from harness.evidence.operation import OPERATOR, Operation
from harness.judge.judge import judge
from tests.harness.judge.cases import correct

Call = tuple[int, str, str]
_AWAY, _BACK = (OPERATOR, "displace", "."), (OPERATOR, "put_back", ".")


def _with(*calls: Call) -> Evidence:
    """A correct first run, and behind it these operations: rank, kind, path."""
    evidence = correct().evidence()
    run = evidence.runs[0]
    more = tuple(
        Operation(
            index=len(run.operations) + number,
            time_s=9.0,
            rank=rank,
            thread=1,
            kind=kind,
            path=path,
            creates=kind == "open",
        )
        for number, (rank, kind, path) in enumerate(calls)
    )
    run = dataclasses.replace(run, operations=(*run.operations, *more))
    return dataclasses.replace(evidence, runs=(run, *evidence.runs[1:]))


def _judged(*calls: Call) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What two guards say: that on the displaced directory, and whether the trace is complete."""
    guards = {one.name: one.details for one in judge(_with(*calls)).guards}
    return guards["displaced_untouched"], guards["trace_complete"]


def test_a_directory_that_comes_back_has_all_that_it_had() -> None:
    assert _judged(_AWAY, (0, "fsync", "."), _BACK) == ((), ())


def test_what_was_made_in_its_place_is_told_and_is_gone_with_it() -> None:
    described = (
        "run 0: 1 operations were made in the place of the directory, the first mkdir step_6",
    )
    assert _judged(_AWAY, (0, "mkdir", "step_6"), _BACK) == (described, ())


def test_a_directory_that_stays_away_is_judged_until_the_end_of_the_run() -> None:
    described = (
        "run 0: 1 operations were made in the place of the directory, the first mkdir step_6",
    )
    assert _judged(_AWAY, (0, "mkdir", "step_6"))[0] == described


def test_a_name_that_was_made_and_removed_there_is_nothing() -> None:
    assert _judged(_AWAY, (0, "open", ".probe"), (0, "unlink", ".probe"), _BACK) == ((), ())
