"""Variants of the model and optimizers of the job: each trains in its layouts, and is told of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness import words
from harness.jobs.training.digest import digest_state
from harness.jobs.training.kept_tensors import KeptTensors, WeightAverage
from harness.jobs.training.models import build_model, split
from harness.jobs.training.optimizers import OPTIMIZERS, build_optimizer
from harness.jobs.training.optimizers.packed import Packed
from harness.jobs.training.variants import VARIANTS
from harness.jobs.training.variants.experts import rank_local
from harness.plan.model import Plan
from harness.scenario.schema import Accumulation, Data, Model
from harness.world import World
from tests.harness.jobs.drive import Warm, event_logs, make_plan, steps

CPU = torch.device("cpu")
NEAR = 1e-3
"""As in `test_layouts`."""
DDP, FSDP, STAGES = World(dp_replicate=2), World(dp_shard=2), World(pp=2)


def plan_of(world: World, *, variant: str = "plain", **changes: Any) -> Plan:
    """A reference run of six steps."""
    plan = make_plan(6, world=world, model=Model(variant=variant, dropout=0.0))
    return plan.model_copy(update={"workload": plan.workload.model_copy(update=changes)})


def losses(warm: Warm, directory: Path, plan: Plan) -> list[float]:
    """The loss of the last rank after each step."""
    directory.mkdir()
    assert set(warm.run(directory, plan)) == {0}
    described = steps(event_logs(directory, plan)[-1])
    return [float.fromhex(described[step].loss or "nan") for step in range(1, 7)]


def built(variant: str, rank: int = 0) -> nn.Module:
    """The whole model on one rank."""
    model = Model(variant=variant)
    return build_model(model, Data(), split(2, 1, 0), seed=7, device=CPU, rank=rank)


def test_every_word_of_the_language_has_a_module() -> None:
    assert tuple(VARIANTS) == words.VARIANTS
    assert tuple(OPTIMIZERS) == words.OPTIMIZERS


@pytest.mark.parametrize("variant", ["experts", "hooks", "tied", "lora", "idle", "buffers"])
def test_a_variant_trains_alike_with_plain_and_with_sharded_parameters(
    warm: Warm, tmp_path: Path, variant: str
) -> None:
    found = losses(warm, tmp_path / "one", plan_of(DDP, variant=variant))
    wanted = losses(warm, tmp_path / "other", plan_of(FSDP, variant=variant))
    assert found == pytest.approx(wanted, rel=NEAR)
    # Hooks change what a state dict has, and nothing of the training.
    plain = losses(warm, tmp_path / "plain", plan_of(DDP))
    assert (found == plain) is (variant == "hooks")


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "lookahead", "low_bit"])
def test_an_optimizer_trains_alike_with_plain_and_with_sharded_parameters(
    warm: Warm, tmp_path: Path, optimizer: str
) -> None:
    found = losses(warm, tmp_path / "one", plan_of(DDP, optimizer=optimizer))
    wanted = losses(warm, tmp_path / "other", plan_of(FSDP, optimizer=optimizer))
    # The scale of a momentum in eight bits is that of the shard.
    assert found == pytest.approx(wanted, rel=5 * NEAR if optimizer == "low_bit" else NEAR)
    assert found != losses(warm, tmp_path / "plain", plan_of(DDP))


def test_experts_have_one_name_and_other_values_on_each_rank(warm: Warm, tmp_path: Path) -> None:
    plan = plan_of(FSDP, variant="experts")
    assert warm.run(tmp_path, plan) == [0, 0]
    held = [steps(event_log)[6].state for event_log in event_logs(tmp_path, plan)]
    name = "transformer.blocks.0.up.experts.weight"
    assert held[0].params[name] != held[1].params[name]
    assert held[0].moments[f"{name}.exp_avg"] != held[1].moments[f"{name}.exp_avg"]
    norm = "transformer.blocks.0.norm1.weight"
    whole = [plan_of(DDP, variant="experts")]
    (tmp_path / "ddp").mkdir()
    assert warm.run(tmp_path / "ddp", whole[0]) == [0, 0]
    alike = [
        steps(event_log)[6].state.params for event_log in event_logs(tmp_path / "ddp", whole[0])
    ]
    assert alike[0][norm] == alike[1][norm]
    assert alike[0][name] != alike[1][name]


def test_only_the_experts_begin_otherwise_on_another_rank() -> None:
    one, other = (dict(built("experts", rank).named_parameters()) for rank in (0, 1))
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert differing == [name for name, _ in rank_local(built("experts"))]
    assert len(differing) == 2


def test_a_state_dict_has_the_three_parts_and_gives_the_fused_weights_back() -> None:
    model, other = built("hooks"), built("hooks")
    with torch.no_grad():
        for param in model.parameters():
            param.add_(1.0)
    state = model.state_dict()
    parts = [state[f"transformer.blocks.0.qkv.{name}"] for name in "qkv"]
    assert "transformer.blocks.0.qkv.weight" not in state
    assert [tuple(part.shape) for part in parts] == [(32, 32)] * 3
    other.load_state_dict(state)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(here, there) for here, there in pairs)


def test_tied_weights_are_one_parameter_under_two_names() -> None:
    model = built("tied")
    names = [name for name, _ in model.named_parameters()]
    assert "transformer.head.weight" not in names
    assert {"transformer.head.weight", "transformer.embed.weight"} <= set(model.state_dict())


def test_adapters_alone_train_beside_a_base() -> None:
    trained = {name for name, one in built("lora").named_parameters() if one.requires_grad}
    assert trained == {
        f"transformer.blocks.{block}.{layer}.lora_{part}"
        for block in (0, 1)
        for layer in ("qkv", "up")
        for part in "ab"
    }


def _stepped(name: str) -> tuple[nn.Module, Any]:
    model = nn.Linear(4, 4, bias=name == "muon")
    optimizer = build_optimizer(name, (tuple(model.parameters()),), 3e-3)
    for number in range(4):
        model(torch.full((2, 4), float(number))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("sgd", {"weight.momentum_buffer"}),
        ("muon", {"weight.momentum_buffer", "bias.step", "bias.exp_avg", "bias.exp_avg_sq"}),
        (
            "lookahead",
            {f"weight.inner_{key}" for key in ("step", "exp_avg", "exp_avg_sq", "slow")},
        ),
        ("low_bit", {"weight.momentum", "weight.step"}),
    ],
)
def test_a_digest_sees_what_each_optimizer_holds(name: str, keys: set[str]) -> None:
    model, optimizer = _stepped(name)
    assert digest_state(model, optimizer).moments.keys() == keys


def _scale(moment: Packed) -> None:
    moment.scale.add_(1e-6)


def _code(moment: Packed) -> None:
    moment.codes[0, 0] += 1


@pytest.mark.parametrize("change", [_scale, _code])
def test_a_digest_sees_each_tensor_inside_of_another(change: Callable[[Packed], None]) -> None:
    model, optimizer = _stepped("low_bit")
    before = digest_state(model, optimizer).moments["weight.momentum"]
    change(optimizer.state[model.weight]["momentum"])
    assert digest_state(model, optimizer).moments["weight.momentum"] != before


def test_a_digest_tells_a_packed_moment_from_the_numbers_that_it_stands_for() -> None:
    model, optimizer = _stepped("low_bit")
    before = digest_state(model, optimizer).moments["weight.momentum"]
    state = optimizer.state[model.weight]
    state["momentum"] = state["momentum"].unpacked()
    assert digest_state(model, optimizer).moments["weight.momentum"] != before


@pytest.mark.parametrize("name", ["muon", "lookahead", "low_bit"])
def test_an_optimizer_goes_on_from_its_own_state_dict(name: str) -> None:
    model, optimizer = _stepped(name)
    other = nn.Linear(4, 4, bias=name == "muon")
    other.load_state_dict(model.state_dict())
    again = build_optimizer(name, (tuple(other.parameters()),), 3e-3)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, by in ((model, optimizer), (other, again)):
        one(torch.ones(2, 4)).square().sum().backward()
        by.step()
    digests = digest_state(model, optimizer), digest_state(other, again)
    assert (digests[0].params, digests[0].moments) == (digests[1].params, digests[1].moments)


def test_batches_of_a_step_are_counted_and_read_together(warm: Warm, tmp_path: Path) -> None:
    plan = plan_of(FSDP, accumulate=Accumulation(batches=2))
    assert warm.run(tmp_path, plan) == [0, 0]
    described = steps(event_logs(tmp_path, plan)[0])
    assert [len(described[step].samples) for step in (1, 2)] == [8, 8]
    assert described[2].tokens_seen == 2 * 2 * 2 * 4 * 16


def test_the_optimizer_waits_for_its_batches_where_saves_may_fall_between(
    warm: Warm, tmp_path: Path
) -> None:
    accumulate = Accumulation(batches=3, save_between=True)
    plan = plan_of(FSDP, accumulate=accumulate)
    assert warm.run(tmp_path, plan) == [0, 0]
    states = [steps(event_logs(tmp_path, plan)[0])[step].state for step in range(1, 7)]
    assert [one.params == before.params for before, one in pairwise(states)] == [
        True, False, True, True, False,
    ]  # fmt: skip
    gradient = "transformer.embed.weight.gradient"
    assert [gradient in one.moments for one in states] == [True, True, False, True, True, False]
    assert states[0].moments[gradient] != states[1].moments[gradient]


def test_an_average_is_given_as_it_is_and_taken_back() -> None:
    model = nn.Linear(2, 2, bias=False)
    named = dict(model.named_parameters())

    def kept() -> KeptTensors:
        return KeptTensors(named=named, average=WeightAverage.of(model), saves_gradients=True)

    first = kept()
    torch.nn.init.constant_(model.weight, 5.0)
    first.updated()
    model.weight.grad = torch.ones(2, 2)
    given = first.extra()
    second = kept()
    assert not torch.equal(second.extra()["ema"]["weight"], given["ema"]["weight"])
    model.weight.grad = None
    second.take(given)
    assert torch.equal(second.extra()["ema"]["weight"], given["ema"]["weight"])
    assert [name for name, _ in second.describe()] == ["weight.ema", "weight.gradient"]
