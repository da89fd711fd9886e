"""An account of a run, from evidence built by hand: each part says what it should and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import __main__ as command
from harness.evidence.record import Entered, SaveBegan, SaveReturned, Stepped
from harness.explain.explain import explain
from harness.explain.moment import describe_not_durable, describe_ranks
from tests.harness.judge.cases import (
    Case,
    RunCase,
    correct,
    killed_run,
    resumed_run,
    stepped,
    write_run,
)
from tests.harness.judge.cuts import end_with_cut, evidence_of, materialize


def parts(text: str) -> dict[str, list[str]]:
    """The lines of each part by its title."""
    found: dict[str, list[str]] = {}
    for block in text.split("\n\n")[1:]:
        title, *lines = block.splitlines()
        found[title.removesuffix(":")] = [line.strip() for line in lines]
    return found


def test_of_a_run_that_passed_the_strike_and_the_choice_are_told_and_nothing_is_broken() -> None:
    described = parts(explain(correct().evidence()))
    assert described["run 0: run0.kill-0 struck after 32 operations"][0].startswith(
        "rank 0 (signal 9): had finished step 4, was in save 2 (step 4), last did #31 "
    )
    assert described["run 1 found and chose"] == [
        "`latest`: names step_2",
        "step_2: whole",
        "acknowledged to the job as durable: step 2",
        "ranks 0, 1 took step 2 from step_2: what `latest` names, the newest whole one",
    ]
    assert "what is broken" not in described
    assert described["what was not judged"][1] == (
        "does not apply: integrity (nothing was damaged between runs)"
    )
    assert "where it differs from the reference" not in described


def test_a_run_without_a_strike_is_told_from_the_operation_that_broke_the_sentence() -> None:
    run = killed_run()
    run.strikes.clear()
    run.fired.clear()
    run.exits = (0, 0)
    run.commit(4, sync=False)
    run.point(4)
    described = parts(explain(Case(runs=[run, resumed_run()]).evidence()))
    assert any(title.startswith("run 0: when that became true") for title in described)


def test_what_was_not_synced_is_named_with_its_operations() -> None:
    run = killed_run()
    evidence = Case(runs=[run]).evidence()
    assert list(describe_not_durable(evidence, 0, len(run.operations))) == [
        "the name of .staging-step_4 (rank 0, #27)",
        "the name of .staging-step_4/__0_0.distcp (rank 0, #28)",
    ]
    assert list(describe_not_durable(evidence, 0, 0)) == [
        "nothing: every change that had been made was synced"
    ]


def test_what_a_power_cut_has_left_is_durable_in_the_next_run(tmp_path: Path) -> None:
    first, second = killed_run(), RunCase()
    end_with_cut(first, materialize(first, tmp_path / "left"))
    second.do("unlink", "latest")
    evidence = evidence_of(Case(runs=[first, second]))
    assert list(describe_not_durable(evidence, 1, 1)) == ["the removal of latest (rank 0, #0)"]


def test_a_rank_between_two_saves_is_in_none() -> None:
    run = killed_run()
    evidence = Case(runs=[run]).evidence()
    before = min(one.index for one in run.event_logs[0] if isinstance(one, SaveReturned))
    event_log = tuple(
        replace(one, index=before) if isinstance(one, Stepped) else one
        for one in evidence.runs[0].event_logs[0]
        if not (isinstance(one, SaveBegan) and one.step == 4)
    )
    one_rank = replace(evidence.runs[0], event_logs=(event_log,))
    (line,) = describe_ranks(one_rank, before)
    assert "was in no save" in line
    assert "was in save" not in line


def test_the_period_that_a_rank_has_entered_is_named_until_it_goes_on() -> None:
    run = RunCase()
    run.record(Entered(period="training", index=0))
    run.record(replace(stepped(0, 1), index=1))
    run.record(Entered(period="evaluation", index=2, step=1))
    (evidence,) = Case(runs=[run]).evidence().runs
    lines = [next(describe_ranks(evidence, index)) for index in (0, 1, 2)]
    assert [line.partition(": ")[2] for line in lines] == [
        "had trained no step and entered training",
        "had finished step 1",
        "had finished step 1 and entered evaluation",
    ]


def test_the_command_tells_the_story_of_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_run(tmp_path / "ran", correct())
    assert command.main(["explain", str(directory)]) == command.PASSED
    assert capsys.readouterr().out.startswith("PASS sync: flush: a rank dies (fsdp2)\n")
    assert command.main(["explain", str(tmp_path)]) == command.BAD_INPUT
    assert "is not a whole run directory" in capsys.readouterr().err
