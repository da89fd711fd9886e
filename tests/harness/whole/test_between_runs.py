"""What a real job finds after an operator was at work: twice the same, and red where it missed."""

from __future__ import annotations

from pathlib import Path

from harness.evidence.evidence import Evidence
from harness.evidence.read import read_evidence
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.report.text import describe
from harness.run.execute import execute
from harness.run.services import Services
from tests.harness.proving import plan_of

FLIPPED = "at_rest/flipped-bit-in-a-shard.yaml::disabled"


def _hits(evidence: Evidence) -> list[tuple[str, int, bytes]]:
    """The writes of the operator: where, and which bits it left."""
    at_rest = evidence.at_rest[1]
    return [
        (one.path, one.offset, at_rest.written[one.data or 0 : (one.data or 0) + 1])
        for done in at_rest.done
        for one in done.operations
        if one.kind == "write"
    ]


def test_a_replay_hits_the_same_byte_and_a_run_directory_can_be_judged_again(
    services: Services, tmp_path: Path
) -> None:
    plan = plan_of(FLIPPED)
    first, again = (execute(plan, tmp_path / name, services) for name in ("a", "b"))
    assert [place[:2] for place in _hits(first)] == [place[:2] for place in _hits(again)]
    assert len(_hits(first)) == 1
    for evidence in (first, again, read_evidence(tmp_path / "a")):
        judgement = judge(evidence)
        assert judgement.outcome is Outcome.PASS
        text = describe(evidence, judgement, source=None, replay="")
        assert f"before run 1, operator: flip_bit {_hits(evidence)[0][0]}\n" in text


def test_an_action_that_hits_nothing_is_invalid_and_the_run_after_it_does_not_take_place(
    services: Services, tmp_path: Path
) -> None:
    plan = plan_of(FLIPPED)
    action = plan.runs[1].before[0]
    body = action.action.settings.model_copy(update={"path": "step_7/*"})
    missed = action.model_copy(
        update={"action": action.action.model_copy(update={"flip_bit": body})}
    )
    runs = (plan.runs[0], plan.runs[1].model_copy(update={"before": (missed,)}))
    evidence = execute(plan.model_copy(update={"runs": runs}), tmp_path / "run", services)
    judgement = judge(evidence)
    assert (judgement.outcome, len(evidence.runs)) == (Outcome.INVALID, 1)
    assert [one.details for one in judgement.guards if not one.passed] == [
        ("before run 1: run1.1-flip_bit: nothing matches the pattern",)
    ]
