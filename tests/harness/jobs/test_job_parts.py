"""The parts of the job that can be tried in one process."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from harness.jobs.training.data import Batches, EpochBatches
from harness.jobs.training.digest import digest_state
from harness.jobs.training.implementation import Tools
from harness.jobs.training.inputs import prepare
from harness.jobs.training.models import build_model, split
from harness.jobs.training.parallel import Place
from harness.jobs.training.train import raise_decay
from harness.plan.model import Implementation
from harness.scenario.schema import Batching, Data, Model
from harness.world import World
from tests.harness.jobs.drive import ROOT

DATA = Data(samples=32)
CPU = torch.device("cpu")


def test_a_pipeline_starts_from_the_same_weights_as_the_whole_model() -> None:
    for preset in ("tiny_transformer", "tiny_vlm"):
        model = Model(preset=preset, layers=3)
        whole = build_model(model, DATA, split(3, 1, 0), seed=7, device=CPU).state_dict()
        parts = [build_model(model, DATA, split(3, 2, n), seed=7, device=CPU) for n in range(2)]
        names = [set(part.state_dict()) for part in parts]
        assert names[0] | names[1] == set(whole)
        assert not names[0] & names[1]
        assert {"transformer.embed.weight", "transformer.blocks.1.qkv.weight"} <= names[0]
        assert {"transformer.head.weight", "transformer.blocks.2.qkv.weight"} <= names[1]
        for part in parts:
            for name, value in part.state_dict().items():
                assert torch.equal(value, whole[name]), name


def test_building_a_model_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    build_model(Model(), DATA, split(2, 1, 0), seed=7, device=CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_ranks_share_an_epoch_and_each_epoch_has_its_order() -> None:
    orders = [EpochBatches(DATA, seed=7, rank=rank, ranks=2) for rank in range(2)]
    first = [n for order in orders for batch in order for n in batch]
    assert sorted(first) == list(range(32))
    assert first == [n for order in orders for batch in order for n in batch]
    for order in orders:
        order.epoch = 1
    assert first != [n for order in orders for batch in order for n in batch]


def test_samples_that_fill_no_batch_on_every_rank_are_left_out() -> None:
    orders = [EpochBatches(Data(samples=23), seed=7, rank=rank, ranks=2) for rank in range(2)]
    assert [[len(batch) for batch in order] for order in orders] == [[4, 4], [4, 4]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 3, 4, 5])
def test_loader_goes_on_where_its_state_was_taken(workers: int, taken: int) -> None:
    data = Data(samples=16, num_workers=workers)
    random_states = random.getstate(), torch.get_rng_state()
    first = Batches(data, seed=7, rank=0, ranks=1)
    for _ in range(taken):
        first.take()
    saved, epoch = first.loader.state_dict(), first.epoch
    expected = [first.take() for _ in range(6)]
    first.close()
    second = Batches(data, seed=7, rank=0, ranks=1)
    second.begin(epoch)
    second.loader.load_state_dict(saved)
    again = [second.take() for _ in range(6)]
    second.close()
    assert [batch.ids for batch in again] == [batch.ids for batch in expected]
    assert np.array_equal(again[-1].text, expected[-1].text)
    assert np.array_equal(again[-1].images, expected[-1].images)
    assert random.getstate() == random_states[0]
    assert torch.equal(torch.get_rng_state(), random_states[1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [3, 5, 8])
def test_a_loader_that_redistributes_goes_on_for_ranks_of_another_degree(
    workers: int, taken: int
) -> None:
    data = Data(samples=68, num_workers=workers, redistributes=True)
    before = [Batches(data, seed=7, rank=rank, ranks=2) for rank in range(2)]
    for one in before:
        _take(one, taken)
    saved = [one.loader.state_dict() for one in before]
    expected = [sorted(n for one in before for n in _take(one, 1)[0]) for _ in range(5)]
    fewer = data.dealt_to(4, before=2)
    after = [Batches(fewer, seed=7, rank=rank, ranks=4) for rank in range(4)]
    for one in after:
        one.loader.load_state_dicts(saved)
    found = [sorted(n for one in after for n in _take(one, 1)[0]) for _ in range(2)]
    # And once more, from the middle of an epoch that began in the middle.
    again = [Batches(fewer, seed=7, rank=rank, ranks=4) for rank in range(4)]
    for one, other in zip(after, again, strict=True):
        other.loader.load_state_dict(one.loader.state_dict())
    found += [sorted(n for one in again for n in _take(one, 1)[0]) for _ in range(2)]
    last = Batches(data.dealt_to(1, before=2), seed=7, rank=0, ranks=1)
    last.loader.load_state_dicts([one.loader.state_dict() for one in again])
    found += [sorted(n for n in _take(last, 1)[0])]
    assert found == expected
    assert last.epoch == (taken + 4) // 8
    for one in (*before, *after, *again, last):
        one.close()


def test_a_loader_that_redistributes_goes_on_with_other_batches_and_workers() -> None:
    data = Data(samples=35, redistributes=True)
    before = Batches(data, seed=7, rank=1, ranks=2)
    order = [
        n
        for batch in EpochBatches(Data(samples=35, batch_size=1), seed=7, rank=1, ranks=2)
        for n in batch
    ]
    assert [n for ids in _take(before, 2) for n in ids] == order[:8]

    fewer = Batches(Batching(batch_size=2, num_workers=1).of(data), seed=7, rank=1, ranks=2)
    fewer.loader.load_state_dict(before.loader.state_dict())
    assert _take(fewer, 2) == [tuple(order[8:10]), tuple(order[10:12])]

    # The five samples that are left fill one batch of four; then comes the next epoch.
    again = Batches(data, seed=7, rank=1, ranks=2)
    again.loader.load_state_dict(fewer.loader.state_dict())
    assert _take(again, 1) == [tuple(order[12:16])]
    assert (_take(again, 1) != [], again.epoch) == (True, 1)
    for one in (before, fewer, again):
        one.close()


@pytest.mark.parametrize(("generator", "draws"), [("own", False), ("global", True)])
def test_a_loader_draws_from_the_global_generator_where_it_is_asked_to(
    generator: Literal["own", "global"], draws: bool
) -> None:
    batches = Batches(Data(samples=8, generator=generator), seed=7, rank=0, ranks=1)
    before = torch.get_rng_state()
    batches.take()
    assert torch.equal(before, torch.get_rng_state()) is not draws
    at_epoch = torch.get_rng_state()
    batches.take()
    assert torch.equal(at_epoch, torch.get_rng_state())
    batches.take()
    assert torch.equal(at_epoch, torch.get_rng_state()) is not draws


def test_a_manager_is_given_the_loader_as_it_was_wrapped() -> None:
    wrapped: list[object] = []

    def wrap(loader: object) -> object:
        wrapped.append(loader)
        return loader

    batches = Batches(DATA, seed=7, rank=0, ranks=1, wrap=wrap)
    assert wrapped == [batches.loader]


def _take(batches: Batches, number: int) -> list[tuple[int, ...]]:
    return [batches.take().ids for _ in range(number)]


def test_positions_of_ranks_that_stopped_apart_are_refused() -> None:
    data = Data(samples=32, redistributes=True)
    before = [Batches(data, seed=7, rank=rank, ranks=2) for rank in range(2)]
    _take(before[0], 1)
    _take(before[1], 2)
    after = Batches(data, seed=7, rank=0, ranks=1)
    with pytest.raises(
        ValueError, match=r"different positions of their epochs: \[\(0, 4\), \(0, 8\)\]"
    ):
        after.loader.load_state_dicts([one.loader.state_dict() for one in before])


def test_a_plain_loader_does_not_claim_to_redistribute() -> None:
    assert not hasattr(Batches(DATA, seed=7, rank=0, ranks=1).loader, "load_state_dicts")


def test_digest_sees_each_parameter_each_moment_and_each_generator() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    fresh = digest_state(model, optimizer)
    assert fresh.params.keys() == {"weight", "bias"}
    assert fresh.moments == {}
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    stepped = digest_state(model, optimizer)
    assert stepped.moments.keys() == {
        f"{name}.{key}" for name in ("weight", "bias") for key in ("step", "exp_avg", "exp_avg_sq")
    }
    assert all(stepped.params[name] != fresh.params[name] for name in fresh.params)
    assert (fresh.groups["0.lr"], fresh.groups["0.betas"]) == ("0.001", "(0.9, 0.999)")
    raise_decay(optimizer)
    raised = digest_state(model, optimizer).groups
    assert {name for name in fresh.groups if raised[name] != fresh.groups[name]} == {
        "0.weight_decay"
    }
    draws: dict[str, Callable[[], object]] = {
        "python": random.random,
        "numpy": np.random.rand,
        "torch": lambda: torch.rand(1),
    }
    for name, draw in draws.items():
        before = digest_state(model, optimizer).rng
        draw()
        after = digest_state(model, optimizer).rng
        assert [key for key in before if before[key] != after[key]] == [name]


def test_digest_tells_minus_zero_from_zero() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters())
    digests = []
    for value in (0.0, -0.0):
        torch.nn.init.constant_(model.weight, value)
        digests.append(digest_state(model, optimizer).params["weight"])
    assert digests[0] != digests[1]


def test_implementation_brings_its_own_companions_or_gets_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_checkpointer.py").write_text(
        "class Manager: ...\nclass ShutdownHandler: ...\n"
    )
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    tools = Tools(Implementation(name="other_checkpointer:Manager", path=str(tmp_path)))
    assert tools.manager.__module__ == "other_checkpointer"
    assert tools.find("ShutdownHandler").__module__ == "other_checkpointer"
    assert tools.find("CheckpointConfig").__module__ == "kempnerforge.config.checkpoint"


def test_implementation_without_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="named `module:Name`, found 'just_a_module'"):
        Tools(Implementation(name="just_a_module"))


def test_preloading_leaves_one_thread_and_does_not_import_the_package() -> None:
    code = (
        "import os, sys\n"
        "from harness.jobs.training.preload import preload\n"
        "preload()\n"
        "import torch\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
        "assert not torch.distributed.is_initialized()\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert not [name for name in sys.modules if name.startswith('kempnerforge')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_a_stage_is_given_has_the_strides_of_its_example() -> None:
    batch = Batches(DATA, seed=7, rank=0, ranks=1).take()
    place = Place(
        rank=0,
        world=World(pp=2),
        device=CPU,
        shards=None,
        peers=None,
        stages=None,
        everyone=None,
        stage_group=None,
    )
    (tokens,), _ = prepare(batch, Model(), place)
    assert (tokens.shape, tokens.stride()) == ((4, 16), (16, 1))
