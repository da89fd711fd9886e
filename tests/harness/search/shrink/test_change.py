"""Small changes of a scenario: steps that move wherever they are named, sizes that compare."""

from __future__ import annotations

import pytest

from harness.report.failure import scenario_text
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from harness.search.shrink.change import map_steps
from harness.search.shrink.size import size_of

EVERYWHERE = """\
name: steps everywhere
checkpoint: {dyn_ckpt_window: {start: 4, stop: 12}, on_error: go_on}
freeze: {schedule: [{start_step: 6, specs: [{module: transformer, frozen: false}]}]}
runs:
  - until_step: 8
    faults:
      - {fail: {rank: 0, error: EIO, until: {step: 6}}, at: {save: 1, path: "step_4/*"}}
  - until_step: 12
    before:
      - {foreign: {path: step_10, kind: file}}
      - {swap: {path: "step_8/*", against: step_4}}
      - {latest: {step: 4}}
    faults: [{kill: {rank: all}, at: {step: 10}}]
  - {until_step: 12, load_step: 8}
"""
HALVED = """\
name: steps everywhere
checkpoint: {dyn_ckpt_window: {start: 2, stop: 6}, on_error: go_on}
freeze: {schedule: [{start_step: 3, specs: [{module: transformer, frozen: false}]}]}
runs:
  - until_step: 4
    faults:
      - {fail: {rank: 0, error: EIO, until: {step: 3}}, at: {save: 1, path: step_2/*}}
  - until_step: 6
    before:
      - {foreign: {path: step_10, kind: file}}
      - {swap: {path: step_4/*, against: step_2}}
      - {latest: {step: 2}}
    faults: [{kill: {rank: all}, at: {step: 5}}]
  - {until_step: 6, load_step: 4}
"""


def parse(text: str) -> Scenario:
    return Scenario.model_validate(parse_source(text, shown="a").data)


def test_steps_move_wherever_they_are_named_and_foreign_names_stay() -> None:
    assert scenario_text(map_steps(parse(EVERYWHERE), lambda step: step // 2)) == HALVED


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("{runs: [{until_step: 9}]}", "{runs: [{until_step: 1}, {until_step: 1}]}"),
        ("{runs: [{until_step: 2}], world: {pp: 2}}", "{runs: [{until_step: 2, faults: [K]}]}"),
        ("{runs: [{until_step: 9}], seed: 5}", "{runs: [{until_step: 1}], world: {pp: 2}}"),
        ("{runs: [{until_step: 9}]}", "{runs: [{until_step: 1}], seed: 1}"),
        ("{runs: [{until_step: 8}]}", "{runs: [{until_step: 9}]}"),
        ("{A, runs: [{until_step: 9}]}", "{P, runs: [{until_step: 1}]}"),
        ("{runs: [{until_step: 2, faults: [K]}]}", "{runs: [{until_step: 2, faults: [R]}]}"),
    ],
)  # fmt: skip
def test_a_scenario_is_smaller_by_what_costs_a_reader_most(smaller: str, larger: str) -> None:
    assert size_of(named(smaller)) < size_of(named(larger))


def named(text: str) -> Scenario:
    for word, stands in (
        ("K", "{kill: {rank: all}, at: {step: 1}}"),
        ("R", "{kill: {rank: 0}, at: {step: 1}}"),
        ("P", "checkpoint: {async_mode: async_with_pinned_mem}"),
        ("A", "checkpoint: {async_mode: async}"),
    ):
        text = text.replace(word, stands)
    return check_source(parse_source(text.replace("{", "{name: a, ", 1), shown="a"), gpus=0)
