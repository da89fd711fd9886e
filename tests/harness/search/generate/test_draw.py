"""What is drawn: scenarios that the reader takes, of every kind, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from random import Random

import pytest
from hypothesis import given

from harness.faults.actions import ACTIONS
from harness.faults.fail import Fail
from harness.faults.operator import Operator
from harness.faults.power_cut import PowerCut
from harness.faults.registry import FAULTS
from harness.layouts.registry import LAYOUTS
from harness.report.failure import scenario_text
from harness.scenario.possible import find_impossible, save_steps
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from harness.search.generate.candidates import Candidates
from harness.search.generate.draw import draw_scenario
from harness.search.generate.faults import NOT_DRAWN
from harness.search.generate.job import AREAS, draw_job
from harness.search.generate.strategies import jobs, scenarios, typical_candidates
from harness.search.generate.stream import is_first_of_job, job_of, scenario_of
from harness.words import ERRORS, EXCEPTIONS, OPTIMIZERS, PERIODS, PHASES, VARIANTS

NUMBER = 2000
"""Enough that what is drawn in one of four hundred is there."""


@cache
def drawn(without: frozenset[str] = frozenset()) -> tuple[Scenario, ...]:
    found = []
    for number in range(NUMBER // 5 if without else NUMBER):
        random = Random(f"test {number}")
        job = draw_job(random, without=without)
        candidates = typical_candidates(job.world.size)
        found.append(draw_scenario(random, job, candidates, without=without))
    return tuple(found)


def words(scenario: Scenario) -> Iterator[str]:
    """What a scenario has of what the language has words for."""
    yield scenario.checkpoint.async_mode
    yield f"{scenario.world.pp} {scenario.world.dp_shard}"
    yield from forms(scenario)
    for number, run in enumerate(scenario.runs):
        yield from (action.word for action in run.before)
        for setting in ("load_step", "refused", "world", "freeze"):
            if getattr(run, setting) is not None:
                yield f"{setting} of a run"
        for fault in run.faults:
            yield fault.word
            yield fault.at.phase or fault.at.during or "no phase"
            yield f"run {number} is struck"
            yield getattr(getattr(fault, fault.word), "error", "no error")
            if isinstance(fault, Operator):
                yield f"{fault.operator.word} by hand"
            if isinstance(fault, PowerCut):
                yield f"journal {fault.power_cut.journal}"
            if isinstance(fault, Fail) and fault.fail.until is not None:
                yield "until"
            if isinstance(fault, Fail) and fault.at.phase == "load":
                yield "error while loading"
            if fault.at.once_published:
                yield "once_published"


def forms(scenario: Scenario) -> Iterator[str]:
    """In which form the job holds its state, as far as it is not the plain one."""
    yield scenario.model.variant
    yield scenario.optimizer
    yield f"{scenario.data.generator} generator"
    if scenario.ema:
        yield "ema"
    if scenario.accumulate.batches > 1:
        between = scenario.accumulate.save_between
        yield "save between updates" if between else "several batches"


FORMS = {
    *VARIANTS[1:],
    *OPTIMIZERS[1:],
    "global generator",
    "ema",
    "save between updates",
    "several batches",
}


@given(scenarios())
def test_what_is_drawn_is_read_back_as_it_was(scenario: Scenario) -> None:
    source = parse_source(scenario_text(scenario), shown="generated")
    assert check_source(source, gpus=0) == scenario


def test_nothing_impossible_is_drawn() -> None:
    assert [one.name for one in drawn() if any(find_impossible(one, gpus=0))] == []


@given(jobs())
def test_a_job_is_one_run_that_nothing_strikes(job: Scenario) -> None:
    assert [(run.faults, run.before) for run in job.runs] == [((), ())]


@given(scenarios())
def test_the_last_run_goes_to_its_end(scenario: Scenario) -> None:
    *_, last = scenario.runs
    assert not [fault for fault in last.faults if fault.ends_run]


@given(scenarios())
def test_at_most_one_fault_ends_a_run_and_nothing_comes_after_it(scenario: Scenario) -> None:
    for run in scenario.runs:
        assert not any(fault.ends_run for fault in run.faults[:-1])


def test_nothing_strikes_before_what_the_run_has_to_come_through() -> None:
    """Of the first run it is known which step each save has."""
    pairs = [one for one in drawn() if len(one.runs[0].faults) == 2]
    assert len(pairs) > NUMBER // 20
    ends = {one.runs[0].faults[1].at.during for one in pairs}
    assert ends == {None, "ending"}
    for scenario in (one for one in pairs if one.runs[0].faults[1].at.during is None):
        steps = save_steps(scenario.checkpoint, after=-1, until=scenario.runs[0].until_step)
        first, then = (
            fault.at.step or steps[(fault.at.save or 0) - 1] for fault in scenario.runs[0].faults
        )
        assert first < then


def test_nothing_of_the_language_is_left_out() -> None:
    found = {word for scenario in drawn() for word in words(scenario)}
    wanted = {*FAULTS, *ACTIONS, *ERRORS, *EXCEPTIONS, *PHASES, *PERIODS, "until", "once_published"}
    wanted |= {"disabled", "async", "async_with_pinned_mem"}
    wanted |= {"1 1", "1 2", "1 3", "1 4", "2 1", "2 2"}
    wanted |= {"load_step of a run", "refused of a run", "world of a run", "freeze of a run"}
    wanted |= {"run 0 is struck", "run 1 is struck", "run 2 is struck"}
    elsewhere = {"leftover", "relocate", *NOT_DRAWN}
    wanted |= {f"{action} by hand" for action in ACTIONS if action not in elsewhere}
    wanted |= {"journal lost", "journal kept", "error while loading", *FORMS}
    assert wanted - found == set(NOT_DRAWN)


@pytest.mark.parametrize(
    ("area", "gone"),
    [
        ("signals", {"sigterm"}),
        ("loop", {"raise", "exit", "starve"}),
        ("storage", {"fail", "short_write", "retransmit", "delay", "hang", "stop"}),
        ("at_rest", set(ACTIONS)),
        ("layouts", {"refused of a run", "world of a run", "freeze of a run"}),
        ("pipeline", {"2 1", "2 2"}),
        ("freeze", {"freeze of a run"}),
        ("power", {"power_cut"}),
        ("operator", {"operator"}),
        ("two_jobs", {"second_job"}),
        ("forms", FORMS),
    ],
)
def test_an_area_that_is_left_out_is_not_drawn(area: str, gone: set[str]) -> None:
    found = {word for scenario in drawn(frozenset({area})) for word in words(scenario)}
    assert found & gone == set()


def test_every_area_can_be_left_out_at_once() -> None:
    plain = drawn(frozenset(AREAS))
    assert {f.word for one in plain for run in one.runs for f in run.faults} == {"kill"}


def test_the_same_number_of_a_seed_is_the_same_scenario() -> None:
    assert [scenario_text(scenario_of(7, n, candidates_of(7, n))) for n in range(1, 30)] == [
        scenario_text(scenario_of(7, n, candidates_of(7, n))) for n in range(1, 30)
    ]
    assert scenario_text(scenario_of(7, 2, candidates_of(7, 2))) == SECOND_OF_SEED_7


def candidates_of(seed: int, number: int) -> Candidates:
    return typical_candidates(job_of(seed, number).world.size)


def test_four_scenarios_share_a_job() -> None:
    assert [is_first_of_job(number) for number in range(1, 10)] == [
        True, False, False, False, True, False, False, False, True,
    ]  # fmt: skip
    assert job_of(1, 1) == job_of(1, 4) != job_of(1, 5)


SECOND_OF_SEED_7 = """\
name: 'async: prune: rank 1 is killed before exchange of save 1, 1 more, and the job resumes (fsdp2, async_with_pinned_mem)'
seed: 25
world: {dp_shard: 2}
model: {dropout: 0.0}
scheduler: {warmup_steps: 0}
data: {samples: 12, batch_size: 1, num_workers: 2}
checkpoint: {interval: 3, async_mode: async_with_pinned_mem, timeout_s: 4.0, on_error: go_on}
runs:
  - until_step: 9
    faults:
      - {kill: {rank: 1}, at: {rank: 0, save: 1, phase: prune, operation: exchange, path: step_*/a}}
  - until_step: 13
    faults:
      - {operator: {foreign: {path: step_x, kind: directory}}, at: {step: 13}}
"""  # noqa: E501
"""Who changes what is drawn changes this; a seed means something within one version."""


def test_what_is_drawn_is_of_the_layout_of_the_code_under_test() -> None:
    layout = LAYOUTS["dcp_steps"]
    text = ""
    for number in range(NUMBER // 5):
        random = Random(f"test {number}")
        job = draw_job(random)
        given = replace(
            typical_candidates(job.world.size),
            layout=layout,
            files=(layout.shards, layout.summary),
            leftovers=(),
        )
        text += scenario_text(draw_scenario(random, job, given))
    assert f"{layout.name_of(4)}/{layout.summary}" in text
    assert f"{layout.any_name}/{layout.shards}" in text
    assert "latest:" not in text
    assert "metadata.json" not in text
