"""`bounded` and `clean`: what waits, what raises, and what is left."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from harness.evidence.operation import Fired
from harness.evidence.record import Finished, SaveReturned
from harness.judge.event_logs import may_end_early
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.schema import Checkpoint, Filesystem
from tests.harness.judge.cases import (
    Case,
    RunCase,
    correct,
)
from tests.harness.strikes import strike


def _judge(name: str, case: Case) -> Verdict:
    return JUDGES[name](case.evidence(), case.history())


def _one_run(run: RunCase, **more: object) -> Case:
    return Case(runs=[run], **more)  # type: ignore[arg-type]


def test_a_rank_that_is_alive_at_the_deadline_is_a_hang() -> None:
    case = correct()
    case.runs[1].hung = (1,)
    verdict = _judge("bounded", case)
    assert verdict.details == ("run 1: rank 1 still alive after 20 s without a record",)
    assert verdict.outcome is Outcome.HANG


@pytest.mark.parametrize(("killed", "state"), [((0,), "holds"), ((), "violated")])
def test_a_failed_save_is_everyones_error_unless_a_rank_was_killed_in_that_run(
    killed: tuple[int, ...], state: str
) -> None:
    run = RunCase()
    run.start()
    run.train(1, 2)
    run.begin(2)
    run.fail("save", ranks=[1])
    if killed:
        run.kill(killed)
    case = _one_run(run, checkpoint=Checkpoint(on_error="go_on"))
    assert _judge("bounded", case).state == state


def _fails_in_save(number: int, *, of: int) -> RunCase:
    """Rank 0 meets EIO in the first save; saves raise from then on up to the n-th."""
    run = RunCase()
    run.start()
    run.strikes.append(strike("fail", name="run0.fail", save=1, operation="write"))
    run.fired.append(Fired(strike="run0.fail", index=0, time_s=0.0, ranks=(0,)))
    for save in range(1, of + 1):
        run.begin(2 * save)
        if save == 1:
            run.do("write", ".staging-step_2/a", error=errno.EIO)
        if save <= number:
            run.fail("save", message="rank 0: EIO")
        else:
            run.record(SaveReturned(step=2 * save, ordinal=save, index=len(run.operations)))
    return run


@pytest.mark.parametrize(
    ("failed", "saves", "details"),
    [
        (1, 2, ()),
        (2, 2, ("run 0: no save succeeded on rank 0 after the last one that failed",)),
        # Nothing was tried any more once the storage worked again.
        (1, 1, ()),
    ],
)
def test_a_save_after_the_storage_has_failed_has_to_succeed_if_there_is_one(
    failed: int, saves: int, details: tuple[str, ...]
) -> None:
    case = _one_run(_fails_in_save(failed, of=saves), checkpoint=Checkpoint(on_error="go_on"))
    assert _judge("bounded", case).details == details


def test_a_last_save_whose_change_was_done_and_answered_an_error_has_no_later_one_to_succeed() -> (
    None
):
    run = RunCase()
    run.start()
    run.strikes.append(strike("retransmit", name="run0.retransmit", save=1, operation="rename"))
    run.begin(2)
    at = len(run.operations)
    run.do("rename", ".staging-step_2", "step_2")
    run.fired.append(Fired(strike="run0.retransmit", index=at, time_s=0.0, ranks=(0,)))
    run.fail("save", message="rank 0: ENOENT")
    case = _one_run(run, checkpoint=Checkpoint(on_error="go_on"))
    assert _judge("bounded", case).details == ()


@pytest.mark.parametrize(
    "named", ["rank 0", "(RANK 0)", "Rank 0", "rank=0", "[rank0]", "ranks [1, 0]", "global_rank 0"]
)
def test_a_rank_is_named_in_any_usual_form(named: str) -> None:
    run = _fails_in_save(0, of=2)
    run.event_logs = [[], []]
    run.begin(6)
    run.fail("save", message=f"{named}: EIO")
    run.begin(8)
    run.record(SaveReturned(step=8, ordinal=4, index=0))
    case = _one_run(run, checkpoint=Checkpoint(on_error="go_on"))
    assert _judge("bounded", case).details == ()


@pytest.mark.parametrize("named", ["rank 10", "pp_rank 0", "local_rank=0", "rank 1, 0 files"])
def test_another_rank_or_a_stage_is_not_the_rank(named: str) -> None:
    run = _fails_in_save(1, of=1)
    for event_log in run.event_logs:
        event_log[-1] = replace(event_log[-1], message=f"{named}: EIO")  # type: ignore[call-arg]
    case = _one_run(run, checkpoint=Checkpoint(on_error="go_on"))
    assert _judge("bounded", case).details == (
        "run 0: no error names rank 0, whose storage failed",
    )


def test_a_storage_fault_that_did_not_strike_need_not_be_named() -> None:
    run = _fails_in_save(1, of=1)
    run.fired.clear()
    run.event_logs = [[], []]
    run.begin(2)
    run.fail("save", message="out of memory")
    case = _one_run(run, checkpoint=Checkpoint(on_error="go_on"))
    assert "names" not in " ".join(_judge("bounded", case).details)


def _fails_while_loading(*, times: int | str) -> Case:
    """A job of two runs, of which the second meets EIO on rank 1 in its load."""
    case = correct()
    del case.runs[2:]
    run = RunCase()
    says = {"error": "EIO", "times": times}
    one = strike("fail", says, ranks=(1,), name="run1.fail", phase="load", operation="read")
    run.strikes.append(one)
    run.do("read", "step_6/a", rank=1, error=errno.EIO, save=None, phase="load")
    run.fired.append(Fired(strike=one.id, index=0, time_s=0.0, ranks=(1,)))
    case.runs[1] = run
    return case


@pytest.mark.parametrize(
    ("messages", "details"),
    [
        (("rank 1: EIO", "rank 1: EIO"), ()),
        (("rank 1: EIO", None), ("run 1: rank 1 did not learn that the start failed",)),
        (("step_6 is damaged",) * 2, (
            "run 1: no error names rank 1, whose storage failed",
            "run 1: no error says EIO, which the storage answered",
        )),
        (("rank 1: EIO", "rank 1: EIO!"), (
            "run 1: the ranks raised CheckpointError: rank 1: EIO and "
            "CheckpointError: rank 1: EIO!",
        )),
    ],
)  # fmt: skip
def test_a_start_whose_reads_fail_is_everyones_error(
    messages: tuple[str | None, ...], details: tuple[str, ...]
) -> None:
    case = _fails_while_loading(times="always")
    for rank, message in enumerate(messages):
        if message is not None:
            case.runs[1].fail("load", ranks=[rank], message=message)
    assert _judge("bounded", case).details == details


def test_a_start_that_fails_before_its_reads_do_is_not_theirs() -> None:
    case = _fails_while_loading(times="always")
    case.runs[1].fired.clear()
    case.runs[1].fail("build", ranks=[0], message="no room")
    assert _judge("bounded", case).details == ()


@pytest.mark.parametrize(("times", "may"), [(1, False), (3, False), ("always", True)])
def test_a_start_comes_through_reads_that_fail_a_few_times(times: int | str, may: bool) -> None:
    assert may_end_early(_fails_while_loading(times=times).evidence(), 1) is may


def test_processes_threads_and_names_that_are_left_are_a_leak() -> None:
    case = correct()
    case.runs[0].leaked = ("pt_data_worker 4711",)
    case.runs[1].finish(6, threads=("flush_0",))
    case.runs[1].do("mkdir", ".staging-step_8")
    assert _judge("clean", case).details == (
        "run 0: process pt_data_worker 4711 outlived it",
        "run 1, rank 0: thread flush_0 is left",
        "run 1, rank 1: thread flush_0 is left",
        ".staging-step_8 is left in the checkpoint directory",
    )


def test_a_thread_that_training_leaves_without_any_save_is_not_the_checkpointers() -> None:
    case = correct()
    ended = Finished(step=6, reason="until_step", threads=("Thread-1", "compile_worker"))
    case.reference = [[*case.reference[0], ended], case.reference[1]]
    case.runs[1].finish(6, threads=("Thread-1", "flush_0", "compile_worker"))
    assert _judge("clean", case).details == tuple(
        f"run 1, rank {rank}: thread {name} is left"
        for rank in (0, 1)
        for name in ("Thread-1", "flush_0")
    )


def test_a_thread_that_a_library_keeps_for_the_process_is_nobodys_leak() -> None:
    case = correct()
    case.runs[1].finish(6, threads=("tqdm_monitor", "flush_0"))
    assert _judge("clean", case).details == tuple(
        f"run 1, rank {rank}: thread flush_0 is left" for rank in (0, 1)
    )


def test_what_a_killed_last_run_leaves_in_the_directory_is_no_leak() -> None:
    case = correct()
    del case.runs[1]
    assert _judge("clean", case).state == "holds"


@pytest.mark.parametrize(
    ("mounted", "data", "details"),
    [
        (True, b"", ()),
        (False, b"", (".lock is left in the checkpoint directory",)),
        (True, b"pid 7", (".lock is left in the checkpoint directory",)),
    ],
)
def test_the_empty_file_of_a_lock_may_stay_where_directories_are_locked_for_one_host_alone(
    mounted: bool, data: bytes, details: tuple[str, ...]
) -> None:
    case = correct()
    case.runs[1].put(".lock", data)
    evidence = case.evidence()
    mount = Filesystem() if mounted else None
    evidence = replace(evidence, plan=evidence.plan.model_copy(update={"mount": mount}))
    found = next(one for one in judge(evidence).verdicts if one.property == "clean")
    assert found.details == details
