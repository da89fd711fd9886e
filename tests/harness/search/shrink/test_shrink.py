"""How small it gets, how little is asked, and that what comes out still shows what went in.

The question that costs a real run elsewhere is a predicate here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, given, settings

from harness.faults.power_cut import PowerCut
from harness.report.failure import scenario_text
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from harness.search.generate.strategies import scenarios
from harness.search.shrink.shrink import Shows, Shrunk, is_readable, shrink
from harness.search.shrink.size import size_of

Predicate = Callable[[Scenario], bool]

few = settings(max_examples=20, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
"""Each example asks dozens of questions; to explain a failure would ask thousands."""

LARGE = """\
name: "a large one"
seed: 41
world: {pp: 2, dp_shard: 2}
model: {preset: tiny_vlm, layers: 3, dim: 16, dropout: 0.0}
scheduler: {warmup_steps: 5}
data: {samples: 30, batch_size: 2, num_workers: 2}
checkpoint: {interval: 3, keep_last_n: 3, async_mode: async_with_pinned_mem, on_error: go_on}
freeze:
  base: [{module: adapter}]
  schedule: [{start_step: 7, specs: [{module: adapter, frozen: false}]}]
runs:
  - until_step: 10
    faults:
      - {delay: {rank: 2, seconds: 0.5}, at: {save: 1, phase: flush, operation: write}}
      - kill: {rank: 1}
        at: {rank: 3, save: 3, phase: seal, operation: write, path: "step_9/a", nth: 4, when: after}
  - until_step: 16
    faults:
      - fail: {rank: 2, error: ENOSPC, times: 3}
        at: {save: 2, phase: flush, operation: write, nth: 7}
  - until_step: 18
    before: [{foreign: {path: best, kind: link}}, {flip_bit: {path: "step_15/*.distcp"}}]
    faults: [{sigterm: {rank: 3, grace_s: 2.0}, at: {step: 17}}]
  - {until_step: 20}
"""


BESIDE = """\
name: "an operator, a second job and a power cut"
seed: 41
world: {dp_shard: 2}
checkpoint: {interval: 3, async_mode: async}
runs:
  - until_step: 10
    faults:
      - operator: {latest: {step: 3}}
        at: {rank: 1, step: 8, once_published: true}
  - until_step: 16
    faults:
      - second_job: {rank: 1, refused: in use}
        at: {save: 2, phase: flush, operation: write, nth: 2}
  - until_step: 18
    faults:
      - power_cut: {journal: kept}
        at: {rank: 1, save: 1, phase: seal, operation: fsync, nth: 2, when: after}
  - {until_step: 20}
"""


def faults(scenario: Scenario, kind: str) -> list[object]:
    return [f for run in scenario.runs for f in run.faults if f.word == kind]


def has_fault(kind: str) -> Predicate:
    return lambda scenario: bool(faults(scenario, kind))


def has_action(word: str) -> Predicate:
    return lambda scenario: any(
        action.word == word for run in scenario.runs for action in run.before
    )


def resumes_after_a_kill_in_a_late_save(scenario: Scenario) -> bool:
    struck = [
        number
        for number, run in enumerate(scenario.runs)
        for fault in run.faults
        if fault.word == "kill" and (fault.at.save or 0) >= 2 and fault.at.phase == "seal"
    ]
    return bool(struck) and struck[0] < len(scenario.runs) - 1


def keeps_the_journal(scenario: Scenario) -> bool:
    return any(
        fault.power_cut.journal == "kept"
        for run in scenario.runs
        for fault in run.faults
        if isinstance(fault, PowerCut)
    )


def saves(number: int) -> Predicate:
    return lambda one: one.runs[-1].until_step // one.checkpoint.interval >= number


def both(*predicates: Predicate) -> Predicate:
    return lambda scenario: all(predicate(scenario) for predicate in predicates)


def large() -> Scenario:
    return check_source(parse_source(LARGE, shown="large"), gpus=0)


def beside() -> Scenario:
    return check_source(parse_source(BESIDE, shown="beside"), gpus=0)


def never() -> bool:
    return False


def answer(predicate: Predicate, asked: list[Scenario] | None = None) -> Shows:
    def shows(some: Sequence[Scenario]) -> Sequence[bool]:
        if asked is not None:
            asked.extend(some)
        return [predicate(scenario) for scenario in some]

    return shows


def smallest(predicate: Predicate, start: Scenario | None = None) -> str:
    found = shrink(start or large(), answer(predicate), at_once=2, is_over=never)
    assert found.is_complete
    return scenario_text(found.smallest).partition("\n")[2]


@pytest.mark.parametrize(
    ("predicate", "text"),
    [
        (lambda _: True, "runs:\n  - {until_step: 1}\n"),
        (saves(3), "runs:\n  - {until_step: 6}\n"),
        (lambda one: one.world.pp == 2, "world: {pp: 2}\nruns:\n  - {until_step: 1}\n"),
        (lambda one: one.world.size > 2, "world: {dp_shard: 3}\nruns:\n  - {until_step: 1}\n"),
        (
            lambda one: one.checkpoint.async_mode != "disabled",
            "checkpoint: {async_mode: async}\nruns:\n  - {until_step: 1}\n",
        ),
        (
            lambda one: bool(one.freeze.schedule),
            "model: {preset: tiny_vlm}\n"
            "freeze: {schedule: [{start_step: 1, specs: [{module: adapter, frozen: false}]}]}\n"
            "runs:\n  - {until_step: 1}\n",
        ),
        (
            lambda one: one.data.num_workers > 0,
            "data: {num_workers: 1}\nruns:\n  - {until_step: 1}\n",
        ),
        (
            has_fault("kill"),
            "runs:\n"
            "  - {until_step: 2, faults: [{kill: {rank: all}, at: {save: 1, phase: seal}}]}\n",
        ),
        (
            resumes_after_a_kill_in_a_late_save,
            "runs:\n"
            "  - {until_step: 4, faults: [{kill: {rank: all}, at: {save: 2, phase: seal}}]}\n"
            "  - {until_step: 4}\n",
        ),
        (
            has_fault("fail"),
            "runs:\n"
            "  - {until_step: 2, faults: "
            "[{fail: {rank: 0, error: EIO}, at: {save: 1, phase: flush}}]}\n",
        ),
        (
            both(has_fault("fail"), lambda one: faults(one, "fail")[0].fail.times == 3),  # type: ignore[attr-defined]
            "runs:\n"
            "  - {until_step: 2, faults: "
            "[{fail: {rank: 0, error: EIO, times: 3}, at: {save: 1, phase: flush}}]}\n",
        ),
        (
            has_fault("sigterm"),
            "runs:\n  - {until_step: 1, faults: [{sigterm: {rank: all}, at: {step: 1}}]}\n",
        ),
        (
            has_action("flip_bit"),
            "runs:\n  - {until_step: 1}\n"
            "  - {until_step: 1, before: [{flip_bit: {path: step_1/*.distcp}}]}\n",
        ),
        (
            both(has_action("foreign"), lambda one: len(one.runs) > 2),
            "runs:\n  - {until_step: 1}\n"
            "  - {until_step: 1}\n"
            "  - {until_step: 1, before: [{foreign: {path: best, kind: link}}]}\n",
        ),
    ],
)  # fmt: skip
def test_a_large_scenario_becomes_the_smallest_that_shows_it(
    predicate: Predicate, text: str
) -> None:
    assert smallest(predicate) == text


@pytest.mark.parametrize(
    ("predicate", "text"),
    [
        (lambda _: True, "runs:\n  - {until_step: 1}\n"),
        (
            has_fault("operator"),
            "runs:\n"
            "  - {until_step: 1, faults: [{operator: {latest: {step: 1}}, at: {step: 1}}]}\n",
        ),
        (
            has_fault("second_job"),
            "runs:\n"
            "  - {until_step: 2, faults: "
            "[{second_job: {rank: 0, refused: in use}, at: {save: 1, phase: flush}}]}\n",
        ),
        (
            has_fault("power_cut"),
            "runs:\n"
            "  - {until_step: 2, faults: "
            "[{power_cut: {filesystem: ext4}, at: {save: 1, phase: seal}}]}\n",
        ),
        (
            keeps_the_journal,
            "runs:\n"
            "  - {until_step: 2, faults: "
            "[{power_cut: {journal: kept}, at: {save: 1, phase: seal}}]}\n",
        ),
    ],
)  # fmt: skip
def test_an_operator_a_second_job_and_a_power_cut_go_where_they_are_not_needed(
    predicate: Predicate, text: str
) -> None:
    assert smallest(predicate, beside()) == text


@few
@given(scenarios())
def test_whatever_has_a_fault_shrinks_to_one_run_with_one(scenario: Scenario) -> None:
    kinds = [fault.word for run in scenario.runs for fault in run.faults]
    if not kinds:
        return
    found = shrink(scenario, answer(has_fault(kinds[-1])), at_once=2, is_over=never).smallest
    assert (len(found.runs), len(found.runs[0].faults)) in ((1, 1), (2, 0))
    assert found.world.size == 1
    # Threads in the background are starved, or there is nothing to starve.
    needs_background = any(
        fault.starved_steps is not None for run in found.runs for fault in run.faults
    )
    assert (found.checkpoint.async_mode == "disabled") is not needs_background


@few
@given(scenarios())
def test_what_comes_out_shows_it_and_is_smaller_at_each_step(scenario: Scenario) -> None:
    ranks, runs = scenario.world.size, len(scenario.runs)
    predicate = both(lambda one: one.world.size * 2 > ranks, lambda one: len(one.runs) * 2 > runs)
    found = shrink(scenario, answer(predicate), at_once=3, is_over=never)
    assert all(predicate(one) and is_readable(one) for one in found.kept)
    sizes = [size_of(one) for one in found.kept]
    assert sizes == sorted(set(sizes), reverse=True)


@few
@given(scenarios())
def test_nothing_is_asked_twice_and_nothing_that_no_file_could_say(scenario: Scenario) -> None:
    asked: list[Scenario] = []
    shrink(scenario, answer(has_fault("kill"), asked), at_once=2, is_over=never)
    texts = [scenario_text(one).partition("\n")[2] for one in asked]
    assert len(texts) == len(set(texts))
    for one in asked:
        check_source(parse_source(scenario_text(one), shown="asked"), gpus=0)


def test_a_few_dozen_questions_are_enough() -> None:
    found = shrink(large(), answer(resumes_after_a_kill_in_a_late_save), at_once=2, is_over=never)
    assert found.tried < MOST_QUESTIONS


MOST_QUESTIONS = 50
"""It takes 41; two at once, and a second or two each, are less than a minute."""


def test_it_asks_as_many_at_once_as_there_are_to_answer() -> None:
    together: list[int] = []

    def shows(some: Sequence[Scenario]) -> Sequence[bool]:
        together.append(len(some))
        return [False] * len(some)

    shrink(large(), shows, at_once=4, is_over=never)
    assert max(together) == 4


def test_it_stops_with_the_best_so_far_when_time_is_over() -> None:
    left = [True] * 3

    def is_over() -> bool:
        return not left

    def shows(some: Sequence[Scenario]) -> Sequence[bool]:
        left.pop()
        return [True] * len(some)

    found: Shrunk = shrink(large(), shows, at_once=1, is_over=is_over)
    assert (found.is_complete, len(found.kept)) == (False, 4)


def test_what_nothing_simpler_shows_stays_as_it_is() -> None:
    found = shrink(large(), answer(lambda _: False), at_once=2, is_over=never)
    assert found.kept == (large(),)


def test_the_smallest_gets_a_name_that_says_what_is_left() -> None:
    found = shrink(large(), answer(resumes_after_a_kill_in_a_late_save), at_once=2, is_over=never)
    name = "sync: seal: all ranks are killed in save 2, and the job resumes (1 rank)"
    assert found.smallest.name == name
