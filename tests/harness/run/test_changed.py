"""A run in another arrangement gets a reference that makes the same change, once for all plans."""

from __future__ import annotations

from pathlib import Path

from harness.evidence.record import Resumed
from harness.judge.judge import judge
from harness.run.execute import execute
from harness.run.services import Services
from tests.harness.proving import plan_of


def test_each_change_of_the_arrangement_has_its_reference_and_no_tolerance(
    services: Services, tmp_path: Path
) -> None:
    plan = plan_of("layouts/two-stages-and-back.yaml")

    evidence = execute(plan, tmp_path / "run", services)

    starts = {
        number: [one.step for log in logs for one in log if isinstance(one, Resumed)]
        for number, logs in evidence.changed.items()
    }
    assert starts == {1: [4], 2: [6, 6]}
    exact = next(one for one in judge(evidence).verdicts if one.property == "resume_exact")
    assert (exact.state, exact.lacks) == ("holds", ())
    assert not list((tmp_path / "run").glob("*/handed_over"))


def test_the_same_change_is_trained_once(services: Services, tmp_path: Path) -> None:
    plan = plan_of("layouts/two-stages-become-one.yaml::disabled")
    first = execute(plan, tmp_path / "first", services)
    second = execute(plan, tmp_path / "second", services)

    # The records name the processes that wrote them.
    assert first.changed.keys() == {1}
    assert second.changed == first.changed


def test_a_changed_run_that_begins_afresh_has_its_reference(
    services: Services, tmp_path: Path
) -> None:
    plan = plan_of("loop/exit-before-the-first-question.yaml::disabled")
    changed = plan.runs[1].model_copy(update={"learning_rate": 0.1})
    plan = plan.model_copy(update={"runs": (plan.runs[0], changed)})

    evidence = execute(plan, tmp_path / "run", services)

    exact = next(one for one in judge(evidence).verdicts if one.property == "resume_exact")
    assert (exact.state, exact.lacks, set(evidence.changed)) == ("holds", (), {1})


def test_a_plan_that_changes_nothing_hands_nothing_over(services: Services, tmp_path: Path) -> None:
    plan = plan_of("baseline/stopped-between-saves.yaml")
    assert execute(plan, tmp_path / "run", services).changed == {}
    assert not (services.root / "references" / plan.reference_key() / "handed_over").exists()
