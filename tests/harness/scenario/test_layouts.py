"""Arrangements that a model or a batch does not fit, and changes that no data loader survives."""

from __future__ import annotations

import pytest

from harness.scenario.errors import ScenarioError
from harness.scenario.read import check_source
from harness.scenario.source import parse_source

TWO = "runs: [{until_step: 4}, {until_step: 6, world: %s}]"


def problem(*lines: str) -> str:
    """What is impossible about a scenario of these lines, or nothing."""
    source = parse_source("\n".join(('name: "x: y"', *lines)), shown="x.yaml")
    try:
        check_source(source, gpus=0)
    except ScenarioError as error:
        return str(error).partition(": ")[2]
    return ""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ("world: {tp: 4}", "runs: [{until_step: 2}]"),
            "model.heads: 2 heads cannot be split among 4 tensor-parallel ranks;"
            " possible: a multiple of 4",
        ),
        (
            ("world: {pp: 2, tp: 8}", "model: {heads: 8}", "runs: [{until_step: 2}]"),
            "world: pp2 x tp8 needs 16 ranks, the CPU has room for 8;"
            " possible: fewer of pp: 2, tp: 8",
        ),
        (
            ("world: {pp: 2, schedule: interleaved}", "runs: [{until_step: 2}]"),
            "model.layers: 4 interleaved parts need at least one layer each, found 2",
        ),
        (
            (
                "world: {pp: 4, schedule: 1f1b}",
                "model: {layers: 4}",
                "data: {batch_size: 2}",
                "runs: [{until_step: 2}]",
            ),
            "data.batch_size: 1f1b sends a batch through 4 stages in 4 parts, found 2;"
            " possible: a multiple of 4",
        ),
        (
            (
                "world: {dp_replicate: 2}",
                "model: {preset: tiny_vlm}",
                "freeze: {schedule: [{start_step: 2, specs: [{module: adapter}]}]}",
                "runs: [{until_step: 2}]",
            ),
            "freeze.schedule: DDP fixes its parameters at the start: nothing can be frozen or"
            " unfrozen later; possible: `freeze.base`, or `dp_shard`",
        ),
    ],
)
def test_what_cannot_be_split_is_told_with_what_could(
    lines: tuple[str, ...], expected: str
) -> None:
    assert problem(*lines) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("{dp_shard: 4}", "no data loader can continue when 2 data-parallel ranks become 4"),
        ("{dp_replicate: 2}", "no data loader can continue when pp1 x fsdp2 becomes pp1 x ddp2"),
    ],
)
def test_another_degree_or_mesh_needs_a_loader_that_redistributes(now: str, expected: str) -> None:
    world = "world: {dp_shard: 2}"
    where = f"runs[1].world: {expected}: mark the run as `refused`, or set `data.redistributes`"
    assert problem(world, TWO % now) == where
    assert problem(world, "data: {redistributes: true}", TWO % now) == ""


def test_a_step_that_cannot_be_dealt_out_alike_is_told() -> None:
    found = problem(
        "world: {dp_shard: 2}", "data: {redistributes: true, batch_size: 2}", TWO % "{dp_shard: 3}"
    )
    assert found == "runs[1].world: the 4 samples of a step cannot be divided evenly among 3 ranks"


def test_another_number_of_stages_needs_nothing_of_the_loader() -> None:
    assert problem("world: {pp: 2}", "model: {layers: 4}", TWO % "{pp: 4}") == ""
