"""Which managers are accused, of which missing order; told in operations made by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.crash.explore import Exploration, explore
from harness.disk.profiles import ProfileName
from harness.evidence.record import SaveReturned
from harness.judge.outcome import Outcome
from harness.scenario.schema import Checkpoint
from tests.harness.judge.cases import Case, RunCase, checkpoint_files, correct

BOTH: tuple[ProfileName, ...] = ("ordered", "posix")


def causes(found: Exploration) -> list[tuple[str, str]]:
    """The property of each cause, and its sentence without the numbers of operations."""
    return [
        (hit.cause.fault.property, re.sub(r" \(rank[^)]*\)", "", hit.cause.sentence))
        for hit in found.hits
    ]


def saving(*, steps: tuple[int, ...] = (2,)) -> RunCase:
    """A run that has trained; the test says how it saves."""
    run = RunCase()
    run.start()
    run.train(1, max(steps))
    return run


def look(run: RunCase, profile: ProfileName = "posix") -> Exploration:
    return explore(Case(runs=[run]).evidence(), profile=profile)


@pytest.mark.parametrize("profile", BOTH)
def test_a_correct_job_is_not_accused(profile: ProfileName) -> None:
    found = explore(correct().evidence(), profile=profile)

    assert (found.outcome, found.hits, found.gaps) == (Outcome.PASS, [], ())
    assert found.states > found.distinct > 50
    assert {"step_2", "step_4", "latest"} < {
        name for state in found.resumable for name, _ in found.parts.names(state.tree)
    }


def test_a_job_without_operations_proves_nothing() -> None:
    assert look(saving()).outcome is Outcome.INVALID


def test_a_trace_that_does_not_explain_the_disk_proves_nothing() -> None:
    run = saving()
    run.save(2)
    run.after = {}
    assert look(run).outcome is Outcome.INVALID


@pytest.mark.parametrize("profile", BOTH)
def test_a_shard_that_is_not_synced_is_named_with_the_rename_that_shows_it(
    profile: ProfileName,
) -> None:
    run = saving()
    run.begin(2)
    files = checkpoint_files(2)
    shard = "__1_0.distcp"
    run.fill(".staging-step_2", {name: data for name, data in files.items() if name != shard})
    run.put(f".staging-step_2/{shard}", files[shard], sync=False)
    run.do("fsync", ".staging-step_2", phase="seal")
    run.commit(2)
    run.point(2)

    found = look(run, profile)

    assert found.outcome is Outcome.HARD_FAIL
    assert causes(found) == [
        (
            "whole_or_absent",
            "safe only if the rename of .staging-step_2 to step_2 is durable after the data of "
            "step_2/__1_0.distcp",
        ),
        (
            "latest_durable",
            "safe only if the rename of .latest-new to latest is durable after the data of "
            "step_2/__1_0.distcp",
        ),
    ]
    rename = next(one.index for one in run.operations if one.target == "step_2")
    writes = [one.index for one in run.operations if one.path.endswith(shard) and one.size]
    assert found.hits[0].cause.operations == tuple((0, index) for index in (*writes, rename))


def test_names_that_are_not_synced_are_lost_where_no_journal_keeps_their_order() -> None:
    run = saving()
    run.begin(2)
    run.do("mkdir", ".staging-step_2", phase="stage")
    for name, data in checkpoint_files(2).items():
        run.put(f".staging-step_2/{name}", data)
    run.commit(2)
    run.point(2)

    sentences = {sentence for _, sentence in causes(look(run, "posix"))}
    assert (
        "safe only if the rename of .staging-step_2 to step_2 is durable after the name of "
        ".staging-step_2/train_state.pt" in sentences
    )
    assert look(run, "ordered").hits == []


@pytest.mark.parametrize("profile", BOTH)
def test_a_job_that_is_told_before_latest_is_durable(profile: ProfileName) -> None:
    run = saving(steps=(2, 4))
    run.save(2)
    run.begin(4)
    run.stage(4)
    run.commit(4)
    run.point(4, sync=False)
    run.record(SaveReturned(step=4, ordinal=2, index=len(run.operations)))

    found = look(run, profile)

    assert found.outcome is Outcome.LOST_WORK
    assert causes(found) == [
        (
            "nothing_lost",
            "safe only if step_4 is acknowledged after the rename of .latest-new to latest is "
            "durable",
        )
    ]


@pytest.mark.parametrize("profile", BOTH)
def test_a_directory_that_is_synced_under_its_final_name(profile: ProfileName) -> None:
    run = saving()
    run.begin(2)
    files = checkpoint_files(2)
    run.fill(".staging-step_2", files, sync=False)
    run.commit(2, sync=False)
    for name in files:
        run.do("fsync", f"step_2/{name}", phase="seal")
    run.do("fsync", "step_2", phase="seal")
    run.do("fsync", ".", phase="publish")
    run.point(2)

    sentences = {sentence for _, sentence in causes(look(run, profile))}

    for name in files:
        assert (
            "safe only if the rename of .staging-step_2 to step_2 is durable after the data of "
            f"step_2/{name}" in sentences
        )


def test_an_old_checkpoint_that_is_deleted_before_the_new_one_has_its_name() -> None:
    run = saving(steps=(2, 4))
    run.save(2)
    run.begin(4)
    run.stage(4)
    run.commit(4, sync=False)
    run.point(4, sync=False)
    run.do("rename", "step_2", ".trash-step_2", phase="prune")
    run.do("unlink", ".trash-step_2/metadata.json", phase="prune")
    run.do("fsync", ".", phase="prune")
    case = Case(runs=[run], checkpoint=Checkpoint(keep_last_n=1))

    found = causes(explore(case.evidence(), profile="posix"))

    assert (
        "nothing_lost",
        "safe only if the rename of step_2 to .trash-step_2 is durable after the rename of "
        ".staging-step_4 to step_4",
    ) in found
    assert (
        "whole_or_absent",
        "safe only if the removal of .trash-step_2/metadata.json is durable after the rename of "
        "step_2 to .trash-step_2",
    ) in found


def test_half_a_checkpoint_under_its_name_is_not_blamed_on_the_power() -> None:
    run = saving()
    run.begin(2)
    run.fill("step_2", checkpoint_files(2))

    sentences = [sentence for _, sentence in causes(look(run))]
    assert any(one.startswith("not safe even when nothing is lost") for one in sentences)


def test_a_checkpoint_that_lost_a_file_of_its_implementation_is_not_whole() -> None:
    run = saving()
    run.begin(2)
    run.stage(2)
    run.put(".staging-step_2/rank_0.bin", b"generators", sync=False)
    run.do("fsync", ".staging-step_2", phase="seal")
    run.commit(2)

    assert causes(look(run, "ordered")) == [
        (
            "whole_or_absent",
            "safe only if the rename of .staging-step_2 to step_2 is durable after the data of "
            "step_2/rank_0.bin",
        )
    ]


def test_the_same_bytes_written_once_more_are_no_loss() -> None:
    run = saving()
    run.save(2)
    place = len(run.written)
    run.written += checkpoint_files(2)["metadata.json"]
    run.do("open", "step_2/metadata.json", opened=7)
    size = len(run.written) - place
    run.do("write", "step_2/metadata.json", offset=0, size=size, data=place, opened=7)

    assert look(run).hits == []


def test_what_is_not_taken_whole_is_told() -> None:
    run = saving()
    run.begin(2)
    run.fill(".staging-step_2", checkpoint_files(2), sync=False)

    found = explore(Case(runs=[run]).evidence(), most=16)

    assert 0 < found.sampled <= found.instants


def test_the_seed_decides_what_is_sampled() -> None:
    run = saving()
    run.begin(2)
    run.fill(".staging-step_2", checkpoint_files(2), sync=False)
    run.commit(2)
    evidence = Case(runs=[run]).evidence()

    first, again, other = (explore(evidence, seed=seed, most=16) for seed in (1, 1, 2))

    assert (first.states, first.distinct) == (again.states, again.distinct)
    assert first.distinct != other.distinct


def test_what_follows_a_action_at_rest_is_left_alone() -> None:
    evidence = correct().evidence()
    runs = (evidence.plan.runs[0], evidence.plan.runs[1].model_copy(update={"refused": "x"}))
    changed = replace(evidence, plan=evidence.plan.model_copy(update={"runs": runs}))

    assert explore(changed).operations == len(evidence.runs[0].operations)
    assert explore(evidence).operations > len(evidence.runs[0].operations)
