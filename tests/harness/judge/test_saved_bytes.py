"""A checkpoint that holds another state than that of its save is found without a resume from it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from harness.content import tensor_digest
from harness.evidence.record import Record, Resumed, Stepped
from harness.judge.properties import JUDGES
from harness.judge.saved_bytes import read_again
from tests.harness.judge.cases import Case, RunCase, checkpoint_files

NAME = "transformer.weight"
SCALE = "scaler.scale"


def _tensor(step: int, key: str = "") -> torch.Tensor:
    generator = torch.Generator().manual_seed(2 * step + bool(key))
    return torch.randn(8, 4, generator=generator)


def _text(tensor: torch.Tensor) -> str:
    return tensor_digest(tensor.reshape(-1).view(torch.uint8).numpy())


def _real(record: Record) -> Record:
    """The record with digests of tensors that exist."""
    if not isinstance(record, Resumed | Stepped):
        return record
    step = record.step or 0
    state = replace(
        record.state,
        params={NAME: _text(_tensor(step))},
        moments={f"{NAME}.exp_avg": _text(_tensor(step, "exp_avg"))},
    )
    state = replace(state, rng={"torch": _text(_tensor(100 + step))})
    return replace(record, state=state, beside={SCALE: float(step).hex()})


def _archive(held: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(held, file)
    return file.getvalue()


def _save(run: RunCase, step: int, held: Mapping[str, Any]) -> None:
    files = {**checkpoint_files(step), "state.pt": _archive(held)}
    run.begin(step)
    run.fill(f".staging-step_{step}", files)
    run.commit(step)
    run.point(step)


def _state(step: int) -> dict[str, Any]:
    return {
        "model": {NAME: _tensor(step)},
        "optimizer": {f"{NAME}.exp_avg": _tensor(step, "exp_avg")},
        "extra": {"scaler": {"scale": float(step)}},
    }


def _judge(second: Mapping[str, Any], first: Mapping[str, Any] | None = None) -> list[str]:
    """What is found in a run that saves step 2, then step 4, and trains on."""
    run = RunCase()
    run.start()
    run.train(1, 2)
    _save(run, 2, _state(2) if first is None else first)
    run.train(3, 4)
    _save(run, 4, second)
    run.train(5, 6)
    run.event_logs = [[_real(record) for record in log] for log in run.event_logs]
    case = Case(runs=[run])
    return [one.detail for one in read_again(case.evidence(), case.history()).findings]


def test_the_state_of_each_save_is_right() -> None:
    assert _judge(_state(4)) == []


def test_a_tensor_of_the_step_after_the_save_was_not_copied() -> None:
    late = {**_state(4), "model": {NAME: _tensor(5)}}
    assert _judge(late) == [
        "run 0: step_4 was published with other values than those of step 4 at its save: "
        f"1 of step 5; the first is model.{NAME}"
    ]


def test_each_other_step_is_listed() -> None:
    mixed = {
        "model": {NAME: _tensor(5)},
        "optimizer": {f"{NAME}.exp_avg": _tensor(2, "exp_avg")},
        "extra": {"scaler": {"scale": 6.0}},
    }
    (found,) = _judge(mixed)
    assert "1 of step 2, 1 of step 5, 1 of step 6; the first is" in found


def test_a_tensor_under_a_name_of_its_own_is_recognized_if_it_is_of_a_later_step() -> None:
    assert len(_judge({**_state(4), "model": {"p0": _tensor(6)}})) == 1
    assert _judge({**_state(4), "first weights": {"p0": _tensor(0)}}) == []
    assert _judge({**_state(4), "other": {"p0": torch.ones(8, 4)}}) == []


def test_bytes_of_no_step_are_accused_where_the_same_piece_was_right_before() -> None:
    torn = torch.cat([_tensor(4)[:4], _tensor(5)[4:]])
    (found,) = _judge({**_state(4), "model": {NAME: torn}})
    assert f"1 of no step that any rank trained; the first is model.{NAME}" in found


def test_generators_may_be_drawn_from_in_a_save_but_are_never_those_of_a_later_step() -> None:
    right = {**_state(2), "rng": {"torch": _tensor(102)}}
    drawn = {**_state(4), "rng": {"torch": _tensor(200)}}
    epoch = {**_state(4), "rng": {"torch": _tensor(101)}}
    late = {**_state(4), "rng": {"torch": _tensor(105)}}
    assert [len(_judge(one, first=right)) for one in (drawn, epoch, late)] == [0, 0, 1]


def test_another_type_or_other_pieces_are_not_judged() -> None:
    def other(step: int) -> dict[str, Any]:
        model = {NAME: _tensor(step).bfloat16(), f"{NAME}.half": _tensor(step + 1)[:4]}
        return {**_state(step), "model": model}

    assert _judge(other(4)) == []
    assert _judge(other(4), first=other(2)) == []


def test_the_property_that_is_violated_is_resume_exact() -> None:
    run = RunCase()
    run.start()
    run.train(1, 2)
    _save(run, 2, {**_state(2), "model": {NAME: _tensor(3)}})
    run.train(3, 4)
    run.event_logs = [[_real(record) for record in log] for log in run.event_logs]
    case = Case(runs=[run])
    case.reference = [[_real(record) for record in log] for log in case.reference]
    verdict = JUDGES["resume_exact"](case.evidence(), case.history())
    assert verdict.state == "violated"
    assert "1 of step 3" in verdict.details[0]
