"""Layouts that a variant of the model or an optimizer does not know."""

from __future__ import annotations

import pytest

from tests.harness.scenario.test_layouts import TWO, problem

ONE = "runs: [{until_step: 4}]"
LOADER = "data: {redistributes: true}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("world: {dp_shard: 2}", "model: {variant: experts}", ONE), ""),
        (("world: {tp: 2}", "model: {variant: hooks}", ONE), ""),
        (
            ("world: {tp: 2}", "model: {variant: experts}", ONE),
            "model.variant: experts does not support `tp`: tensor-parallel peers would each have"
            " experts of their own",
        ),
        (
            ("world: {pp: 2}", "model: {variant: tied}", ONE),
            "model.variant: the two ends of the model are on different stages, so they cannot be"
            " tied",
        ),
        (
            (
                "model: {preset: tiny_vlm, variant: lora}",
                "freeze: {base: [{module: adapter}]}",
                ONE,
            ),
            "model.variant: lora decides by itself what is frozen: leave `freeze` out",
        ),
        (
            ("world: {dp_shard: 2}", "optimizer: low_bit", LOADER, TWO % "{dp_shard: 4}"),
            "runs[1].world: low_bit cannot continue when pp1 x fsdp2 becomes pp1 x fsdp4, because"
            " each shard of a moment has a scale of its own: mark the run as `refused`",
        ),
        (
            (
                "world: {dp_shard: 2}",
                "model: {variant: experts}",
                LOADER,
                "runs: [{until_step: 4}, {until_step: 6, world: {dp_shard: 1}, refused: rank}]",
            ),
            "",
        ),
        (
            ("world: {pp: 2}", "model: {variant: experts}", TWO % "{pp: 1}"),
            "",
        ),
        (
            ("model: {variant: tied}", TWO % "{pp: 2}"),
            "runs[1].world: the two ends of the model are on different stages, so they cannot be"
            " tied",
        ),
        (
            ("world: {pp: 2}", "accumulate: {batches: 2, save_between: true}", ONE),
            "accumulate.save_between: torch's pipeline discards the gradients that it finds"
            " before its first pass: leave one of `save_between` and `pp` out",
        ),
        (
            ("accumulate: {batches: 5}", ONE),
            "accumulate.batches: an epoch of 12 batches a rank is not a multiple of the 5 of a"
            " step",
        ),
        (
            ("data: {redistributes: true, generator: global}", ONE),
            "data.generator: a loader that redistributes has a generator of its own: leave"
            " `data.redistributes` out",
        ),
        (
            ("model: {variant: expert}", ONE),
            "model.variant: 'expert' is not a variant; known: plain, experts, hooks, tied, lora,"
            " idle, buffers (did you mean 'experts'?)",
        ),
        (
            ("optimizer: adam", ONE),
            "optimizer: 'adam' is not an optimizer; known: adamw, sgd, muon, lookahead, low_bit"
            " (did you mean 'adamw'?)",
        ),
    ],
)
def test_what_no_run_can_have_is_refused(lines: tuple[str, ...], expected: str) -> None:
    assert problem(*lines) == expected
