"""Launchers in scenario files: how they are spelled, and what they cannot be combined with."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.errors import ScenarioError
from harness.scenario.launcher import LauncherSettings
from harness.scenario.read import read_scenario

_TWO_RUNS = "runs: [{until_step: 4}, {until_step: 4}]"
_LIMITED = [
    "runs:",
    "- until_step: 4\n  faults:\n  - time_limit: {}",
    "    at: {step: 2}",
]


def _read(folder: Path, *lines: str) -> LauncherSettings:
    path = folder / "scenario.yaml"
    path.write_text("\n".join(["name: n", "device: cpu", *lines]))
    return read_scenario(path, gpus=0).launcher


def test_a_word_alone_names_the_launcher(tmp_path: Path) -> None:
    assert _read(tmp_path, "launcher: torchrun", _TWO_RUNS) == LauncherSettings(
        kind="torchrun", restarts=0
    )


def test_a_job_whose_time_is_over_is_started_again_by_slurm(tmp_path: Path) -> None:
    launcher = _read(
        tmp_path, "launcher: {kind: slurm, restarts: 1}", *_LIMITED, "- {until_step: 4}"
    )
    assert launcher == LauncherSettings(kind="slurm", restarts=1)


def test_the_harness_starts_the_ranks_itself_where_nothing_is_said(tmp_path: Path) -> None:
    assert _read(tmp_path, _TWO_RUNS) == LauncherSettings(kind="local")


def test_a_launcher_s_restarts_group_the_runs() -> None:
    launcher = LauncherSettings(kind="torchrun", restarts=1)
    assert [launcher.first_run(run) for run in range(4)] == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("lines", "described"),
    [
        (["launcher: mpirun", _TWO_RUNS], "launcher: known: local, torchrun, slurm"),
        (["launcher: {kind: local, restarts: 1}", _TWO_RUNS], "use torchrun"),
        (["launcher: {kind: torchrun, restarts: 2}", _TWO_RUNS], "`runs` has 2"),
        (
            [
                "launcher: torchrun",
                "runs:",
                "- {until_step: 4, faults: [{second_job: {rank: 0, refused: x}, at: {step: 2}}]}",
            ],
            "`second_job` needs ranks that the harness starts",
        ),
        (
            [
                "launcher: torchrun",
                "runs: [{until_step: 4, faults: [{power_cut: {filesystem: ext4}, at: {step: 2}}]}]",
            ],
            "`power_cut` needs ranks that the harness starts",
        ),
        (
            [
                "launcher: {kind: torchrun, restarts: 1}",
                "runs: [{until_step: 4}, {until_step: 6}]",
            ],
            "it cannot change until_step",
        ),
        (
            [
                "launcher: {kind: torchrun, restarts: 1}",
                "runs: [{until_step: 4}, {until_step: 4, before: [{delete: {path: latest}}]}]",
            ],
            "nothing can happen between the two",
        ),
        (
            ["launcher: torchrun", *_LIMITED, "- {until_step: 4}"],
            "`time_limit` needs `launcher: {kind: slurm, restarts: 1}`",
        ),
        (
            ["launcher: slurm", *_LIMITED, "- {until_step: 4}"],
            "`time_limit` needs `launcher: {kind: slurm, restarts: 1}`",
        ),
        (
            ["launcher: {kind: slurm, restarts: 1}", _TWO_RUNS],
            "slurm restarts only a run that met its `time_limit`",
        ),
        (
            [
                "launcher: {kind: slurm, restarts: 1}",
                *_LIMITED[:2],
                "    at: {save: 1, phase: flush}",
                "- {until_step: 4}",
            ],
            "`time_limit` comes after a training step",
        ),
        (
            ["launcher: slurm", "world: {dp_shard: 2, nodes: 2}", _TWO_RUNS],
            "slurm has one node here",
        ),
        (
            ["launcher: torchrun", "explore: {strikes: every_operation}", _TWO_RUNS],
            "leave `launcher` out",
        ),
    ],
)
def test_what_does_not_exist_is_refused_with_the_reason(
    tmp_path: Path, lines: list[str], described: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        _read(tmp_path, *lines)
    assert described in str(error.value)
