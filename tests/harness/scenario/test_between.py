"""What may happen between runs is read, planned without chance, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_scenario
from harness.scenario.schema import FreezePlan
from harness.world import World


def read(folder: Path, second: str, first: str = "until_step: 4", top: str = "seed: 1") -> str:
    """What is wrong with a scenario of two runs; empty if nothing is."""
    path = folder / "x.yaml"
    path.write_text(f"name: a\n{top}\nruns:\n  - {{{first}}}\n  - {{until_step: 6, {second}}}\n")
    try:
        read_scenario(path, shown="x.yaml", gpus=0)
    except ScenarioError as error:
        return str(error)
    return ""


def plan(folder: Path, second: str, top: str = "seed: 1") -> Plan:
    """The plan of a scenario of two runs."""
    assert read(folder, second, top=top) == ""
    scenario = read_scenario(folder / "x.yaml", gpus=0)
    return make_plan(scenario, source="x.yaml", implementation=Implementation())


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("before: [{flip_bit: {path: a}}]", ""),
        (
            "before: [{flipbit: {path: a}}]",
            "before[0]: 'flipbit' is not an action; known: flip_bit, truncate, delete, swap,"
            " half_delete, hostile, write, foreign, leftover, latest, relocate, displace, put_back"
            " (did you mean 'flip_bit'?)",
        ),
        (
            "before: [{delete: {path: a}, truncate: {path: a}}]",
            "before[0]: one entry of `before` holds one action: flip_bit or truncate or delete or"
            " swap or half_delete or hostile or write or foreign or leftover or latest or relocate",
        ),
        ("before: [delete]", "before[0]: found 'delete', expected a mapping such as {flip_bit: "),
        ("before: [{flip_bit: {paths: a}}]", "before[0].flip_bit.path: is missing; expected text"),
        (
            "before: [{latest: {step: 2, becomes: absent}}]",
            "before[0].latest: `latest` needs either `step` or `becomes`",
        ),
        ("before: [{latest: {}}]", "before[0].latest: `latest` needs either `step` or `becomes`"),
        (
            "before: [{latest: {step: 8}}]",
            "before[0].latest.step: step 8 is never saved: the runs end at step 6",
        ),
        (
            "before: [{foreign: {path: step_7, kind: file}}]",
            "before[0].foreign.path: step_7 is a checkpointer's own name; choose another name",
        ),
        ("before: [{foreign: {path: a/b, kind: file}}]", "before[0].foreign.path: found 'a/b': "),
        (
            "before: [{relocate: {how: move, to: run1}}]",
            "before[0].relocate.to: run1 is taken; choose another name",
        ),
        (
            "before: [{relocate: {how: move, to: a}}, {relocate: {how: move, to: b}}]",
            "before[1]: the directory can be relocated only once in a scenario",
        ),
        ("refused: '('", "refused: '(' is not a regular expression: "),
        (
            "refused: x, faults: [{kill: {}, at: {step: 5}}]",
            "a run that is refused never reaches the points of its `faults`",
        ),
        (
            "world: {dp_shard: 9}, refused: x",
            "world: pp1 x fsdp9 needs 9 ranks, the CPU has room for",
        ),
        (
            "world: {dp_shard: 2}",
            "world: no data loader can continue when 1 data-parallel ranks become 2: mark the run"
            " as `refused`",
        ),
        ("world: {dp_shard: 2}, refused: x", ""),
        ("world: {pp: 2}, faults: [{kill: {rank: 1}, at: {step: 5}}]", ""),
        (
            "world: {pp: 2}, faults: [{kill: {rank: 2}, at: {step: 5}}]",
            "faults[0].kill.rank: there is no rank 2 in pp2 x fsdp1; possible: 0 to 1",
        ),
        (
            "freeze: {base: [{module: adapter}]}",
            "freeze.base[0].module: tiny_transformer has no module 'adapter'; known: transformer",
        ),
    ],
)
def test_what_cannot_happen_between_runs_is_refused_with_its_place(
    tmp_path: Path, second: str, expected: str
) -> None:
    found = read(tmp_path, second)
    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("before: [{delete: {path: a}}]", "the directory is empty before the first run"),
        ("world: {pp: 2}", "the first run takes its world from the scenario: set it at the top"),
    ],
)
def test_the_first_run_has_nothing_before_it(tmp_path: Path, first: str, expected: str) -> None:
    assert expected in read(tmp_path, "faults: []", f"until_step: 4, {first}")


def test_each_run_has_its_own_settings_and_the_directory_where_it_was_put(tmp_path: Path) -> None:
    second = (
        "world: {pp: 2}, freeze: {base: [{module: transformer, frozen: false}]},"
        " before: [{relocate: {how: move, to: elsewhere}}]"
    )
    found = plan(tmp_path, second)
    assert [found.workload_of(run).world for run in (0, 1)] == [World(), World(pp=2)]
    assert found.workload_of(0).freeze == FreezePlan()
    assert found.workload_of(1).freeze.base[0].frozen is False
    assert [found.folder_of(run) for run in (0, 1)] == ["checkpoints", "elsewhere"]
    assert Plan.model_validate_json(found.model_dump_json()) == found


def test_the_seed_decides_what_a_file_leaves_open_and_the_plan_holds_it(tmp_path: Path) -> None:
    second = "before: [{flip_bit: {path: a}}, {flip_bit: {path: a}}]"
    actions = plan(tmp_path, second).runs[1].before
    assert [action.id for action in actions] == ["run1.1-flip_bit", "run1.2-flip_bit"]
    assert actions[0].choice != actions[1].choice
    assert plan(tmp_path, second).runs[1].before == actions
    assert plan(tmp_path, second, top="seed: 2").runs[1].before != actions
