"""A failure is seen again before it is shrunk, and the smallest is seen again before it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.judge.judge import Judgement, judge
from harness.judge.outcome import Outcome
from harness.prove import Proof
from harness.scenario.schema import Run, Scenario
from harness.search.shrink.reduce import reduce_failure
from harness.search.shrink.signature import Signature, shows, signature_of
from tests.harness.judge.cases import Case, correct

LEAK = Signature(outcome=Outcome.LEAK, broken="clean")


class Fake:
    """Answers by predicates: one for candidates, one for what is written down."""

    at_once = 2

    def __init__(
        self, again: Callable[[Scenario], bool], *, written: Callable[[Scenario], bool]
    ) -> None:
        self._again, self._written = again, written
        self.asked: list[Scenario] = []

    def shows(self, some: Sequence[Scenario], signature: Signature) -> Sequence[bool]:
        assert signature == LEAK
        self.asked.extend(some)
        return [self._again(one) for one in some]

    def report(self, scenario: Scenario, signature: Signature) -> Proof | None:
        assert signature == LEAK
        outcome = Outcome.LEAK
        return Proof(outcome=outcome, text=scenario.name) if self._written(scenario) else None


def start() -> Scenario:
    return Scenario(name="start", seed=3, runs=(Run(until_step=8), Run(until_step=9)))


def always(_: Scenario) -> bool:
    return True


def test_what_shows_again_is_shrunk_and_written_down() -> None:
    found = reduce_failure(start(), LEAK, Fake(lambda one: len(one.runs) > 1, written=always))
    assert found.proof is not None
    assert found.scenario.runs == (Run(until_step=1), Run(until_step=1))


def test_what_does_not_show_again_in_three_runs_is_left_as_it_is() -> None:
    fake = Fake(lambda _: False, written=always)
    found = reduce_failure(start(), LEAK, fake)
    assert (found.proof, found.scenario, fake.asked) == (None, start(), [start()] * 3)
    assert str(found) == "did not show again in 3 runs"


def test_the_smallest_that_shows_with_the_deadlines_of_all_runs_is_the_one() -> None:
    fake = Fake(always, written=lambda one: one.runs[0].until_step >= 4)
    found = reduce_failure(start(), LEAK, fake)
    assert found.proof is not None
    assert found.shrunk is not None
    assert found.scenario in found.shrunk.kept[:-1]
    assert found.scenario.runs[0].until_step >= 4


def judged(case: Case) -> Judgement:
    return judge(case.evidence())


def leaking() -> Case:
    case = correct()
    case.runs[0].leaked = ("pt_data_worker 4711",)
    return case


def test_what_passes_has_no_signature() -> None:
    assert signature_of(judged(correct())) is None


def test_a_signature_is_the_outcome_and_what_decided_it() -> None:
    assert signature_of(judged(leaking())) == LEAK
    assert str(LEAK) == "LEAK by clean"


def test_a_failure_is_alike_if_outcome_and_decider_are_the_same() -> None:
    hung = leaking()
    hung.runs[1].hung = (1,)
    assert [shows(judged(case), LEAK) for case in (leaking(), hung, correct())] == [
        True, False, False,
    ]  # fmt: skip


def test_a_guard_can_be_what_decided() -> None:
    case = correct()
    case.runs[0].fired.clear()
    found = signature_of(judged(case))
    assert found is not None
    assert (found.outcome, found.broken) == (Outcome.HARD_FAIL, "undisturbed_runs_end")
