"""Properties say what they need: without it they do not apply, and without the rest they do.

Each property is judged on correct evidence and on evidence against each of them, once as it is and
once for each kind of evidence that is taken away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from harness.evidence.evidence import Evidence
from harness.evidence.operation import Fired
from harness.evidence.record import Finished, Record, SaveBegan, SaveReturned, Stepped
from harness.faults.actions import Displace
from harness.jobs.job import Job
from harness.judge.history import replay
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES, PROMISES
from harness.judge.verdict import Verdict
from harness.layouts.kempnerforge import KempnerForge
from harness.scenario.schema import Checkpoint, Expect, Freeze, FreezePlan
from harness.words import EvidenceKind
from tests.harness.judge.cases import Case, RunCase, checkpoint_files, correct, resumed, stepped
from tests.harness.judge.lacking import known_jobs, without
from tests.harness.judge.test_at_rest import before, damaged, first_run, flip, second_run
from tests.harness.strikes import operator, strike

FREEZE = FreezePlan(base=(Freeze(module="vision_encoder"),))


def _torn() -> Case:
    run = RunCase()
    run.fill("step_2", checkpoint_files(2))
    run.do("unlink", "step_2/__1_0.distcp")
    run.point(2)
    return Case(runs=[run])


def _lost() -> Case:
    case = correct()
    case.runs[1].event_logs = [[], []]
    case.runs[1].start()
    return case


def _parted() -> Case:
    case = correct()
    case.runs[1].event_logs[1][0] = resumed(1, None)
    return case


def _other_saves() -> Case:
    case = correct()
    for rank, step in enumerate((8, 7)):
        case.runs[1].record(SaveBegan(step=step, ordinal=3), ranks=(rank,))
    return case


def _replaced(case: Case, step: int, **changes: object) -> Case:
    event_log = case.runs[1].event_logs[0]
    for place, record in enumerate(event_log):
        if isinstance(record, Stepped) and record.step == step:
            event_log[place] = dataclasses.replace(record, **changes)  # type: ignore[arg-type]
    return case


def _other_tokens() -> Case:
    case = correct()
    for event_log in (
        *case.reference,
        *(event_log for run in case.runs for event_log in run.event_logs),
    ):
        event_log[:] = [_with_more_tokens(record) for record in event_log]
    return case


def _with_more_tokens(record: Record) -> Record:
    return dataclasses.replace(record, tokens_seen=5) if isinstance(record, Stepped) else record


def _frozen_at_the_start() -> Case:
    case = correct(freeze=FREEZE)
    for rank, event_log in enumerate(case.runs[1].event_logs):
        event_log[0] = dataclasses.replace(resumed(rank, 2, FREEZE), frozen=())
    return case


def _set_back(*, after: int) -> Case:
    """`latest` is set back to step 2 in a run that saves steps 2 and 4, or resumes after that."""
    runs = [RunCase(), RunCase()]
    runs[0].start()
    runs[0].save(2)
    runs[0].save(4)
    runs[1].start(4)
    runs[after].point(2)
    return Case(runs=runs)


def _hung() -> Case:
    case = correct()
    case.runs[1].hung = (1,)
    return case


def _failed_apart() -> Case:
    run = RunCase()
    run.start()
    run.train(1, 2)
    run.begin(2)
    run.fail("save", ranks=[1])
    return Case(runs=[run], checkpoint=Checkpoint(on_error="go_on"))


def _never_again(*, hit: int) -> Case:
    """The storage of rank 0 fails in one save of two; the second one raises all the same."""
    run = RunCase()
    run.start()
    run.strikes.append(strike("fail", name="run0.fail", save=1, operation="write"))
    for save in (1, 2):
        run.begin(2 * save)
        if save == hit:
            run.do("write", ".staging-step_2/a", error=28)
        run.fail("save", message="rank 0: ENOSPC, no space left on device")
    return Case(runs=[run], checkpoint=Checkpoint(on_error="go_on"))


def _start_failed_apart() -> Case:
    case = correct()
    run = case.runs[1]
    run.event_logs = [[], []]
    run.strikes.append(strike("fail", name="run1.fail", phase="load", path="step_2/*"))
    run.fired.append(Fired(strike="run1.fail", index=0, time_s=0.0, ranks=(0,)))
    run.fail("load", ranks=(0,), message="rank 0: ENOSPC")
    return case


def _process_left() -> Case:
    case = correct()
    case.runs[1].leaked = ("a process",)
    return case


def _thread_left() -> Case:
    case = correct()
    for event_log in case.runs[1].event_logs:
        event_log[-1] = Finished(step=6, reason="until_step", threads=("writer",))
    return case


def _name_left() -> Case:
    case = correct()
    case.runs[1].do("mkdir", "scratch")
    return case


def _threads_of_the_training() -> Case:
    case = _thread_left()
    for event_log in case.reference:
        event_log.append(Finished(step=8, reason="until_step", threads=("writer",)))
    return case


def _withdrawn(*, described: bool) -> Case:
    """A later save gives a checkpoint the name back that it had; told durable, or not."""
    run = RunCase()
    run.start()
    run.save(2)
    run.begin(4)
    run.stage(4)
    run.commit(4)
    if described:
        run.record(SaveReturned(step=4, ordinal=2, index=len(run.operations)))
    run.begin(6)
    run.do("rename", "step_4", ".staging-step_4")
    return Case(runs=[run])


def _hostile(*, ran: bool, resumes: bool = True) -> Case:
    second = second_run(4)
    before(second, flip(), hostile={"path": "step_4/.metadata"})
    if not resumes:
        second.event_logs = [[], []]
    return Case(runs=[first_run(), second], executed=("0-hostile",) if ran else ())


def _rolled_back() -> Case:
    """Goes on from step 2 by name, and keeps it beside its own."""
    second = RunCase(load_step=2)
    second.start(2)
    second.train(3, 6)
    second.save(6)
    second.finish(6)
    return Case(runs=[first_run(), second], checkpoint=Checkpoint(keep_last_n=1))


def _on_the_abandoned_branch() -> Case:
    """An operator goes back to step 2; the run after the next resumes what was saved before."""
    back, again, third = RunCase(), second_run(2), RunCase(until_step=6)
    back.point(2)
    before(again, back, latest={"step": 2})
    third.start(4)
    return Case(runs=[first_run(), again, third])


CASES: dict[str, Callable[[], Case]] = {
    "correct": correct,
    "correct with freezing": lambda: correct(freeze=FREEZE),
    "nothing at all": lambda: Case(runs=[RunCase()]),
    "torn": _torn,
    "lost": _lost,
    "parted": _parted,
    "other saves": _other_saves,
    "other samples": lambda: _replaced(correct(), 3, samples=stepped(0, 2).samples),
    "other loss": lambda: _replaced(correct(), 5, loss=(1.5).hex()),
    "other tokens": _other_tokens,
    "other freezing": lambda: _replaced(correct(freeze=FREEZE), 5, frozen=()),
    "other freezing at the start": _frozen_at_the_start,
    "too many kept": lambda: correct(checkpoint=Checkpoint(keep_last_n=1)),
    "withdrawn": lambda: _withdrawn(described=False),
    "withdrawn although told": lambda: _withdrawn(described=True),
    "rolled back": _rolled_back,
    "on the abandoned branch": _on_the_abandoned_branch,
    "set back": lambda: _set_back(after=0),
    "set back below the resume": lambda: _set_back(after=1),
    "hung": _hung,
    "failed apart": _failed_apart,
    "never again": lambda: _never_again(hit=1),
    "not yet again": lambda: _never_again(hit=2),
    "start failed apart": _start_failed_apart,
    "process left": _process_left,
    "thread left": _thread_left,
    "threads of the training": _threads_of_the_training,
    "name left": _name_left,
    "damage avoided": damaged,
    "damage loaded": lambda: damaged(resumes_from=4),
    "hostile": lambda: _hostile(ran=False),
    "hostile ran": lambda: _hostile(ran=True),
    "hostile, and no resume": lambda: _hostile(ran=False, resumes=False),
}
DECLARED = [(name, kind) for name in PROMISES for kind in PROMISES[name].needs]
USED = [(name, kind) for name in PROMISES for kind in PROMISES[name].uses]
UNDECLARED = [
    (name, kind)
    for name in PROMISES
    for kind in EvidenceKind
    if kind not in (*PROMISES[name].needs, *PROMISES[name].uses)
]


def _asked(name: str, evidence: Evidence) -> Verdict:
    """The judge's own answer, which nobody keeps from answering."""
    return JUDGES[name](evidence, replay(evidence))


def _judged(name: str, evidence: Evidence) -> Verdict:
    return next(one for one in judge(evidence).verdicts if one.property == name)


@pytest.fixture(scope="module", autouse=True)
def _jobs() -> Iterator[None]:
    with known_jobs():
        yield


@pytest.fixture(scope="module")
def evidence() -> dict[str, Evidence]:
    """That of every case."""
    return {name: make().evidence() for name, make in CASES.items()}


@pytest.fixture(scope="module")
def lacking(evidence: dict[str, Evidence]) -> dict[tuple[str, EvidenceKind], Evidence]:
    """The same without each kind."""
    return {
        (name, kind): without(one, kind) for name, one in evidence.items() for kind in EvidenceKind
    }


Lacking = dict[tuple[str, EvidenceKind], Evidence]


@pytest.mark.parametrize(("name", "kind"), DECLARED)
def test_without_what_it_needs_a_property_does_not_apply(
    name: str, kind: EvidenceKind, lacking: Lacking
) -> None:
    for case in CASES:
        verdict = _judged(name, lacking[case, kind])
        assert (verdict.state, verdict.outcome) == ("does_not_apply", Outcome.PASS), case
        assert verdict.details == (f"no evidence of: {kind}",)


@pytest.mark.parametrize(("name", "kind"), USED)
def test_without_what_it_uses_a_property_accuses_nobody_and_says_so(
    name: str, kind: EvidenceKind, evidence: dict[str, Evidence], lacking: Lacking
) -> None:
    for case, one in evidence.items():
        before, now = _judged(name, one), _judged(name, lacking[case, kind])
        assert now.state in (before.state, "holds"), (case, now.details)
        assert now.lacks == ((kind,) if now.applies() else ()), case


@pytest.mark.parametrize(("name", "kind"), UNDECLARED)
def test_without_what_it_does_not_declare_a_property_says_the_same(
    name: str, kind: EvidenceKind, evidence: dict[str, Evidence], lacking: Lacking
) -> None:
    for case, one in evidence.items():
        assert _asked(name, lacking[case, kind]) == _asked(name, one), case


@pytest.mark.parametrize(("name", "kind"), DECLARED + USED)
def test_what_a_property_declares_makes_a_difference_to_it(
    name: str, kind: EvidenceKind, evidence: dict[str, Evidence], lacking: Lacking
) -> None:
    def differs(case: str) -> bool:
        try:
            return _asked(name, lacking[case, kind]) != _asked(name, evidence[case])
        except (IndexError, KeyError):
            return True

    assert any(map(differs, CASES))


@pytest.mark.parametrize("name", PROMISES)
def test_every_property_is_broken_by_some_case_and_applies_to_another_that_keeps_it(
    name: str, evidence: dict[str, Evidence]
) -> None:
    states = {_judged(name, one).state for one in evidence.values()}
    assert {"holds", "violated"} <= states


@pytest.mark.parametrize("kind", EvidenceKind)
def test_a_correct_job_that_gives_less_passes_and_the_rest_is_listed(kind: EvidenceKind) -> None:
    judgement = judge(without(correct(freeze=FREEZE).evidence(), kind))
    assert judgement.outcome is Outcome.PASS, judgement.broken
    listed = {one.partition(": ")[2].partition(" ")[0] for one in judgement.left_out}
    declare = {name for name, one in PROMISES.items() if kind in (*one.needs, *one.uses)}
    applied = {one.property for one in judgement.verdicts if one.applies()}
    assert declare <= listed
    assert set(PROMISES) - listed <= applied


def test_a_job_that_gives_none_of_what_the_scenario_asks_for_proves_nothing() -> None:
    case = correct()
    case.expect = Expect(properties=("samples_exactly_once", "resume_exact"))
    judgement = judge(without(case.evidence(), EvidenceKind.TRAINING))
    assert (judgement.outcome, judgement.broken) == (Outcome.INVALID, ("something_judged",))


def test_a_job_that_gives_nothing_at_all_proves_nothing() -> None:
    evidence = correct().evidence()
    with known_jobs(Job(name="mute", gives=frozenset(), main="")):
        mute = evidence.plan.model_copy(update={"job": "mute"})
        judgement = judge(dataclasses.replace(evidence, plan=mute))
    assert (judgement.outcome, judgement.broken) == (Outcome.INVALID, ("something_judged",))
    assert "not checked: reference_trained (no evidence of: reference, training)" in (
        judgement.left_out
    )


def test_a_displaced_directory_that_cannot_be_watched_proves_nothing() -> None:
    case = correct()
    action = Displace.model_validate({"displace": {"leaves": "empty"}})
    case.runs[0].strikes.append(operator(action, name="run0.operator", step=3))
    case.runs[0].fired.append(Fired(strike="run0.operator", index=0, time_s=0.0, ranks=()))
    judgement = judge(without(case.evidence(), EvidenceKind.TREE))
    assert judgement.outcome is Outcome.INVALID
    assert judgement.broken == ("displaced_untouched",)


def test_what_a_layout_does_not_state_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KempnerForge, "states", frozenset())
    judgement = judge(correct(freeze=FREEZE).evidence())
    assert judgement.outcome is Outcome.PASS
    assert {
        "judged in part: freeze_consistent (no evidence of: freeze settings in this layout)",
        "judged in part: resume_exact (no evidence of: tokens seen in this layout)",
    } <= set(judgement.left_out)


def test_a_refusal_that_cannot_be_seen_proves_nothing() -> None:
    case = correct()
    case.runs[1].refused = "torn"
    judgement = judge(without(case.evidence(), EvidenceKind.RESUMES))
    assert judgement.outcome is Outcome.INVALID
    assert {"refused", "refused_alike"} <= set(judgement.broken)
