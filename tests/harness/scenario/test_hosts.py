"""Mounts and hosts in scenario files: how they are spelled, and what does not go with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.plan.unmake import unmake_plan
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_scenario

_JOINING = (
    "runs:\n- until_step: 4\n  faults:\n"
    "  - {second_job: {rank: 0, refused: in use, host: other}, at: {step: 3}}"
)
_TAKING_OVER = "runs: [{until_step: 4}, {until_step: 6, host: other}]"
_PLAIN = "runs: [{until_step: 4}]"


def _plan(folder: Path, *lines: str) -> Plan:
    path = folder / "scenario.yaml"
    path.write_text("\n".join(["name: n", "device: cpu", *lines]))
    scenario = read_scenario(path, gpus=0)
    plan = make_plan(scenario, source="", implementation=Implementation())
    again = make_plan(unmake_plan(plan), source="", implementation=Implementation())
    assert again == plan
    return plan


@pytest.mark.parametrize(
    ("lines", "hosts", "of_runs"),
    [
        ([_PLAIN], (), [("first", "first")]),
        (["filesystem: {}", _PLAIN], ("first",), [("first", "first")]),
        ([_JOINING], ("first", "other"), [("first", "other")]),
        ([_TAKING_OVER], ("first", "other"), [("first", "first"), ("other", "other")]),
    ],
)
def test_a_plan_has_the_hosts_that_its_runs_need(
    tmp_path: Path, lines: list[str], hosts: tuple[str, ...], of_runs: list[tuple[str, str]]
) -> None:
    plan = _plan(tmp_path, *lines)
    assert plan.hosts == hosts
    assert [plan.hosts_of(number) for number in range(len(plan.runs))] == of_runs


@pytest.mark.parametrize(
    ("settings", "refuses"),
    [("{}", False), ("{exchange: false}", False), ("{symlinks: false}", True)],
)
def test_only_a_mount_that_lacks_what_saves_need_may_refuse_them(
    tmp_path: Path, settings: str, refuses: bool
) -> None:
    assert _plan(tmp_path, f"filesystem: {settings}", _PLAIN).refuses is refuses


@pytest.mark.parametrize(
    ("lines", "described"),
    [
        (["filesystem: {stale: 3}", _PLAIN], "did you mean 'stale_s'?"),
        (["filesystem: {direct: never}", _PLAIN], "known: works, refused, kept"),
        (["launcher: torchrun", _TAKING_OVER], "mounts need ranks that the harness starts"),
        (["world: {dp_shard: 2, nodes: 2}", _TAKING_OVER], "is for one host"),
        (
            [
                "filesystem: {}",
                "runs: [{until_step: 4, faults: [{power_cut: {}, at: {step: 3}}]},"
                " {until_step: 6}]",
            ],
            "a power cut needs a disk that the ranks see directly",
        ),
        (
            [
                "filesystem: {}",
                "runs: [{until_step: 4}, {until_step: 6, before:"
                " [{relocate: {how: move, to: there}}]}]",
            ],
            "the directory is mounted: it cannot be relocated",
        ),
        (
            [
                "filesystem: {}",
                "runs: [{until_step: 4, faults:"
                " [{operator: {displace: {leaves: empty}}, at: {step: 3}}]}]",
            ],
            "the directory is mounted: it cannot be displaced",
        ),
    ],
)
def test_what_does_not_go_with_a_mount_is_refused(
    tmp_path: Path, lines: list[str], described: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        _plan(tmp_path, *lines)
    assert described in str(caught.value)


def _by_operator(*actions: str) -> str:
    strikes = [
        f"{{operator: {action}, at: {{step: {step}}}}}" for step, action in enumerate(actions, 1)
    ]
    return f"runs: [{{until_step: 4, faults: [{', '.join(strikes)}]}}, {{until_step: 6}}]"


_AWAY, _BACK = "{displace: {leaves: nothing}}", "{put_back: {}}"


@pytest.mark.parametrize(
    ("actions", "described"),
    [
        ((_AWAY, _BACK), None),
        ((_AWAY, _BACK, _AWAY, _BACK), None),
        ((_AWAY,), "the directory is still displaced when the next run begins: add `put_back`"),
        ((_BACK,), "the directory was not displaced before"),
        ((_AWAY, _AWAY, _BACK), "the directory is already displaced"),
        ((_AWAY, "{delete: {path: step_2}}", _BACK), "there is nothing to act on"),
    ],
)
def test_a_directory_that_is_moved_away_comes_back_before_the_next_run(
    tmp_path: Path, actions: tuple[str, ...], described: str | None
) -> None:
    if described is None:
        _plan(tmp_path, _by_operator(*actions))
        return
    with pytest.raises(ScenarioError) as caught:
        _plan(tmp_path, _by_operator(*actions))
    assert described in str(caught.value)


def test_a_directory_is_moved_away_from_a_job_that_lives_alone(tmp_path: Path) -> None:
    before = "runs: [{until_step: 4}, {until_step: 6, before: [{put_back: {}}]}]"
    with pytest.raises(ScenarioError) as caught:
        _plan(tmp_path, before)
    assert "`put_back` needs a running job: use the fault `operator`" in str(caught.value)
