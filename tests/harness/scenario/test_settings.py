"""Settings of a run that its loader or its schedule cannot take over are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.scenario.test_possible import read

LOADER = "data: {redistributes: true}"
RUNS = "runs: [{until_step: 6}, {until_step: 8%s}]"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((RUNS % ", learning_rate: 0.1",), ""),
        ((LOADER, RUNS % ", data: {batch_size: 2, num_workers: 1}"), ""),
        (
            (RUNS % ", data: {batch_size: 2}",),
            "runs[1].data: no data loader can continue with another batch size or number of"
            " workers: set `data.redistributes`",
        ),
        (
            (LOADER, RUNS % ", data: {batch_size: 49}"),
            "runs[1].data.batch_size: each rank has 48 samples in an epoch, less than a batch",
        ),
        (
            (LOADER, RUNS % ", data: {batch_size: 2}, world: {dp_shard: 2}"),
            "runs[1].data: ranks and batches cannot both change in a scenario: leave one of them",
        ),
        (
            (LOADER, "accumulate: {batches: 2}", RUNS % ", data: {batch_size: 2}"),
            "runs[1].data: a step of several batches could begin in one epoch and end in the next",
        ),
        (
            ("scheduler: {kind: one_cycle, total_steps: 7}", RUNS % ""),
            "scheduler.total_steps: one_cycle has no step after its last, and the runs end at step"
            " 8; possible: 8 or more",
        ),
        (
            ("scheduler: {kind: annealing, built: after_load}", RUNS % ""),
            "scheduler.built: torch's CosineAnnealingLR continues in other bits when it is built",
        ),
        (
            (RUNS % ", scheduler: {kind: one_cycle}",),
            "runs[1].scheduler.kind: one_cycle keeps its settings in the parameter groups: all",
        ),
        (
            ("runs: [{until_step: 6, learning_rate: 0.1}]",),
            "runs[0].learning_rate: the first run takes its learning_rate from the scenario",
        ),
    ],
)
def test_settings_that_cannot_be_taken_over_are_refused(
    parts: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    found = read(tmp_path, *parts)
    assert (expected in found, bool(found)) == (True, bool(expected)), found
