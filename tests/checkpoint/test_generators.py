"""Loops whose dataloader draws from the global generators resume as if never interrupted."""

import hashlib
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, WeightedRandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from kempnerforge.checkpoint import (
    CheckpointManager,
    RedistributableDataLoader,
    ResumableDataLoader,
)
from kempnerforge.config.schema import CheckpointConfig

SAMPLES, BATCH, EPOCHS = 10, 2, 3
PER_EPOCH = SAMPLES // BATCH
Record: TypeAlias = tuple[int, tuple[int, ...], str, str]
"""Step, ids of its samples, loss and inputs, all generators."""


class Noisy(Dataset[tuple[int, torch.Tensor]]):
    """Samples with noise from the generators of the process that reads them."""

    def __init__(self, *, noisy: bool = True) -> None:
        self._noisy = noisy

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        noise = torch.rand(3) + random.random() if self._noisy else torch.zeros(3)
        return index, noise + index


def plain(workers: int) -> Any:
    return DataLoader(
        Noisy(), batch_size=BATCH, shuffle=True, num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip


def stateful(workers: int, **options: Any) -> Any:
    with warnings.catch_warnings():
        # torchdata 0.11 calls a function that torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
        return StatefulDataLoader(
            # torchdata does not bring back what its workers have drawn since the epoch began.
            Noisy(noisy=not workers), batch_size=BATCH, shuffle=True, num_workers=workers,
            multiprocessing_context="fork" if workers else None, **options,
        )  # fmt: skip


def weighted(workers: int) -> Any:
    """A sampler that draws its whole order from the global generator at the first batch."""
    sampler = WeightedRandomSampler([1.0] * SAMPLES, SAMPLES)
    return DataLoader(Noisy(), batch_size=BATCH, sampler=sampler, num_workers=workers)


def own_generator(workers: int) -> Any:
    """A loader with a generator of its own, which goes on from epoch to epoch."""
    return DataLoader(
        Noisy(), batch_size=BATCH, shuffle=True, num_workers=workers,
        generator=torch.Generator().manual_seed(5),
    )  # fmt: skip


def dealt(kind: Any, workers: int) -> Any:
    """The sampler of a data-parallel rank, whose order depends on `set_epoch` before `iter`."""
    sampler: Any = DistributedSampler(Noisy(), num_replicas=1, rank=0, seed=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
        return kind(Noisy(), batch_size=BATCH, sampler=sampler, num_workers=workers)


def persistent(workers: int) -> Any:
    return stateful(workers, persistent_workers=True, prefetch_factor=3)


LOADERS: dict[str, tuple[Any, int]] = {
    "plain": (plain, 0),
    "plain with workers": (plain, 2),
    "stateful": (stateful, 0),
    "stateful with workers": (stateful, 2),
    "stateful with workers that stay": (persistent, 2),
    "sampler without a generator": (weighted, 0),
    "generator of its own": (own_generator, 0),
    "sampler of a rank": (partial(dealt, DataLoader), 0),
    "stateful with the sampler of a rank": (partial(dealt, StatefulDataLoader), 0),
}


def generators() -> str:
    found: Any = np.random.get_state()
    state = random.getstate(), found[1].tolist(), found[2:], torch.get_rng_state().tolist()
    return hashlib.sha256(repr(state).encode()).hexdigest()


class Loop:
    """A training loop with dropout, as people write it; `saves_after_epoch` is where it saves."""

    def __init__(self, directory: Path, make: Callable[[], Any], seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.make = make
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        config = CheckpointConfig(dir=str(directory), keep_last_n=0)
        self.manager = CheckpointManager(config, self.model, self.optimizer)
        self.records: list[Record] = []

    def run(self, stop: int, *, between_epochs: bool = False) -> list[Record]:
        """Resume, train up to a step and save it; between two epochs, where asked to."""
        step, _, extra = self.manager.load()
        epoch = extra.get("epoch", 0)
        loader = ResumableDataLoader(self.make())
        self.manager.apply_dataloader_state(loader)
        while epoch < EPOCHS:
            if isinstance(loader.sampler, DistributedSampler):
                loader.sampler.set_epoch(epoch)
            for ids, inputs in loader:
                step += 1
                self.train(step, ids, inputs)
                if step == stop and not between_epochs:
                    self.manager.save(step, dataloader=loader, extra={"epoch": epoch})
                    return self.records
            epoch += 1
            if step == stop:
                self.manager.save(step, dataloader=loader, extra={"epoch": epoch})
                return self.records
        return self.records

    def train(self, step: int, ids: torch.Tensor, inputs: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss = self.model(inputs).square().mean()
        loss.backward()
        self.optimizer.step()
        told = f"{loss.item()!r} {inputs.tolist()} {np.random.rand()}"
        self.records.append((step, tuple(ids.tolist()), told, generators()))


@pytest.fixture(params=list(LOADERS))
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    build, workers = LOADERS[request.param]
    return lambda: build(workers)


def uninterrupted(directory: Path, make: Callable[[], Any]) -> list[Record]:
    return Loop(directory / "whole", make, seed=1).run(EPOCHS * PER_EPOCH + 1)


def in_parts(directory: Path, make: Callable[[], Any], stops: Iterator[int], **where: Any) -> Any:
    return [
        record
        for number, stop in enumerate(stops)
        for record in Loop(directory / "parts", make, seed=1 + 7 * number).run(stop, **where)
    ]


def test_a_loop_is_as_never_stopped_when_it_is_resumed_in_the_middle_of_an_epoch(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    expected = uninterrupted(tmp_path, make)
    assert len(expected) == 15
    assert in_parts(tmp_path, make, iter((7, 99))) == expected


def test_a_loop_is_as_never_stopped_when_it_is_resumed_a_second_time_in_the_same_epoch(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    expected = uninterrupted(tmp_path, make)
    assert in_parts(tmp_path, make, iter((6, 8, 12, 99))) == expected


def test_a_loop_is_as_never_stopped_when_it_is_resumed_after_the_last_batch_of_an_epoch(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    expected = uninterrupted(tmp_path, make)
    assert in_parts(tmp_path, make, iter((5, 10, 99))) == expected


def test_a_loop_is_as_never_stopped_when_it_is_resumed_between_two_epochs(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    expected = uninterrupted(tmp_path, make)
    assert in_parts(tmp_path, make, iter((5, 10, 99)), between_epochs=True) == expected


def ids_of(batches: Any) -> list[list[int]]:
    return [ids.tolist() for ids, _ in batches]


def test_a_position_that_a_loader_saved_by_itself_is_taken_when_the_loader_is_wrapped() -> None:
    torch.manual_seed(3)
    loader = stateful(0)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    expected = ids_of(batches)
    wrapped = ResumableDataLoader(stateful(0))
    wrapped.load_state_dict(state)
    generator = torch.get_rng_state()
    rest = iter(wrapped)
    assert torch.equal(torch.get_rng_state(), generator)
    assert ids_of(rest) == expected
    assert len(expected) == 4


def test_a_position_of_another_kind_of_loader_is_refused() -> None:
    state = ResumableDataLoader(stateful(0)).state_dict()
    with pytest.raises(ValueError, match="a loader with state_dict, this is a loader w"):
        ResumableDataLoader(plain(0)).load_state_dict(state)
    state = ResumableDataLoader(plain(0)).state_dict()
    with pytest.raises(
        ValueError, match="has 0 generators of the loader and its samplers, this loader has 1"
    ):
        ResumableDataLoader(own_generator(0)).load_state_dict(state)


def test_a_position_that_was_loaded_is_saved_as_it_is_when_no_batch_was_taken() -> None:
    loader = ResumableDataLoader(plain(0))
    next(iter(loader))
    state = loader.state_dict()
    again = ResumableDataLoader(plain(0))
    again.load_state_dict(state)
    assert again.state_dict() == state


def test_a_wrapped_loader_has_the_attributes_of_the_loader() -> None:
    loader = ResumableDataLoader(own_generator(0))
    assert (len(loader), loader.batch_size, len(loader.dataset)) == (PER_EPOCH, BATCH, SAMPLES)
    with pytest.raises(AttributeError, match="no attribute 'set_epoch'"):
        loader.set_epoch(1)


def test_a_loader_that_redistributes_gets_the_positions_within_when_it_is_wrapped() -> None:
    class Redistributes:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def __iter__(self) -> Iterator[int]:
            return iter(range(4))

        def state_dict(self) -> dict[str, int]:
            return {"at": 2}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.got.append(state)

        def load_state_dicts(self, states: Any) -> None:
            self.got.extend(states)

    inner = Redistributes()
    loader = ResumableDataLoader(inner)
    assert isinstance(loader, RedistributableDataLoader)
    assert not isinstance(ResumableDataLoader(plain(0)), RedistributableDataLoader)
    loader.load_state_dicts([loader.state_dict(), loader.state_dict()])
    assert inner.got == [{"at": 2}, {"at": 2}]
