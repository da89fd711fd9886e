"""What is said of a second job that was not refused as it should have been."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.evidence.evidence import Evidence
from harness.evidence.operation import Fired, Operation
from harness.evidence.record import Finished, Raised, Record, SaveReturned
from harness.judge.changes import lasting
from harness.judge.judge import judge
from tests.harness.judge.cases import correct
from tests.harness.strikes import strike

_REFUSED = Raised(during="save", type="InUseError", message="in use by job 1", trace="")
_OTHER = dataclasses.replace(_REFUSED, message="no room is left")


def _joined(*event_logs: tuple[Record, ...], **operation: object) -> Evidence:
    """A correct first run during which a second job of two ranks wrote these records."""
    evidence = correct().evidence()
    joining = strike("second_job", {"refused": "InUseError.*in use"}, save=1, phase="flush")
    run, plan = evidence.runs[0], evidence.plan.runs[0]
    fired = [
        Fired(strike="s", index=3, time_s=0.0, ranks=(0,), then=then) for then in (None, "ended")
    ]
    more: tuple[Operation, ...] = ()
    if operation:
        place = len(run.operations)
        made = Operation(index=place, time_s=9.0, rank=2, thread=1, **operation)  # type: ignore[arg-type]
        more = (made,)
    run = dataclasses.replace(
        run,
        second=event_logs,
        fired=(*run.fired, *fired),
        operations=(*run.operations, *more),
    )
    plan = plan.model_copy(update={"strikes": (*plan.strikes, joining)})
    whole = evidence.plan.model_copy(update={"runs": (plan, *evidence.plan.runs[1:])})
    return dataclasses.replace(evidence, plan=whole, runs=(run, *evidence.runs[1:]))


def _described(evidence: Evidence) -> tuple[str, ...]:
    judged = judge(evidence)
    return next(one.details for one in judged.guards if one.name == "second_job_refused")


def test_a_second_job_that_is_refused_alike_on_every_rank_is_fine() -> None:
    assert _described(_joined((_REFUSED,), (_REFUSED,))) == ()


@pytest.mark.parametrize(
    ("event_logs", "details"),
    [
        (
            ((_REFUSED,), (_OTHER,)),
            (
                "run 0, second job: the ranks raised different errors: rank 0: InUseError: in use "
                "by job 1; rank 1: InUseError: no room is left",
                "run 0, second job: expected an error that matches 'InUseError.*in use'; found: "
                "rank 0: InUseError: in use by job 1; rank 1: InUseError: no room is left",
            ),
        ),
        (
            ((SaveReturned(step=4, ordinal=1), _REFUSED), (_REFUSED,)),
            ("run 0, second job: rank 0 saved step 4",),
        ),
        (
            ((Finished(step=8, reason="until_step"),), (_REFUSED,)),
            (
                "run 0, second job: rank 0 trained on to step 8",
                "run 0, second job: the ranks raised different errors: rank 0: no error; rank 1: "
                "InUseError: in use by job 1",
                "run 0, second job: expected an error that matches 'InUseError.*in use'; found: "
                "rank 0: no error; rank 1: InUseError: in use by job 1",
            ),
        ),
    ],
)
def test_a_second_job_that_goes_on_or_raises_otherwise_is_told(
    event_logs: tuple[tuple[Record, ...], ...], details: tuple[str, ...]
) -> None:
    assert _described(_joined(*event_logs)) == details


def test_an_operation_of_the_second_job_that_changes_something_is_told() -> None:
    event_logs = (_REFUSED,), (_REFUSED,)
    described = ("run 0, second job: made 1 operations, the first mkdir .staging-x",)
    assert _described(_joined(*event_logs, kind="mkdir", path=".staging-x")) == described
    assert _described(_joined(*event_logs, kind="mkdir", path=".", error=17)) == ()
    assert _described(_joined(*event_logs, kind="fsync", path=".")) == ()


def _operation(number: int, kind: str, path: str, **more: Any) -> Operation:
    return Operation(index=number, time_s=0.0, rank=2, thread=1, kind=kind, path=path, **more)


def _lasting(*calls: tuple[str, str] | tuple[str, str, str]) -> list[str]:
    operations = [
        _operation(
            number,
            kind,
            path,
            target=target[0] if target else None,
            creates=kind == "open",
        )
        for number, (kind, path, *target) in enumerate(calls)
    ]
    return [f"{one.kind} {one.path}" for one in lasting(operations)]


def test_a_name_that_was_made_and_removed_again_is_no_change() -> None:
    assert _lasting(("open", ".probe"), ("write", ".probe"), ("unlink", ".probe")) == []
    assert _lasting(("mkdir", ".x"), ("rmdir", ".x")) == []
    assert _lasting(("link", "latest", ".y"), ("unlink", ".y")) == []


@pytest.mark.parametrize(
    ("calls", "described"),
    [
        ([("open", ".probe"), ("write", ".probe")], ["open .probe", "write .probe"]),
        ([("unlink", "latest")], ["unlink latest"]),
        (
            [("unlink", "latest"), ("symlink", "latest"), ("unlink", "latest")],
            ["unlink latest", "symlink latest", "unlink latest"],
        ),
        (
            [("open", "a"), ("rename", "a", "step_2"), ("unlink", "step_2")],
            ["open a", "rename a", "unlink step_2"],
        ),
        ([("open", "a"), ("unlink", "a"), ("open", "a")], ["open a", "unlink a", "open a"]),
    ],
)
def test_what_was_there_before_or_is_there_now_is_a_change(
    calls: list[tuple[str, str]], described: list[str]
) -> None:
    assert _lasting(*calls) == described
