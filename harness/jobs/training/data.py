"""Training data: windows of real bytes that come with every Python interpreter.

Text comes from the language reference in `pydoc_data.topics`; the images of the VLM are windows of
the interpreter's own executable, read as grey levels. The order of an epoch is a permutation that
depends only on seed and epoch, divided among the data-parallel ranks; samples that do not fill a
batch on every rank are left out of that epoch. Nothing here draws from the global random
generators, unless a loader is asked to.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from harness.jobs.training.models import IMAGE_SIDE
from harness.scenario.schema import Data
from harness.system.parent import die_with_parent

_STRIDE = 7919
"""A prime, so that the windows of neighbouring samples are far apart and do not repeat early."""
_EXECUTABLE_BYTES = 1 << 20

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples as they come from a loader: numpy, which crosses process borders as plain bytes."""

    ids: tuple[int, ...]
    text: Bytes
    images: Bytes


@cache
def text_corpus() -> Bytes:
    """Returns the language reference as bytes."""
    from pydoc_data.topics import topics

    return np.frombuffer("".join(topics.values()).encode(), dtype=np.uint8)


@cache
def image_corpus() -> Bytes:
    """Returns the beginning of the interpreter's executable."""
    with Path(sys.executable).resolve().open("rb") as file:
        return np.frombuffer(file.read(_EXECUTABLE_BYTES), dtype=np.uint8)


class Windows(Dataset[tuple[int, Bytes, Bytes]]):
    """A map-style dataset; a sample is its number, a text window and an image."""

    def __init__(self, data: Data) -> None:
        self._samples = data.samples
        self._length = data.seq_len + 1
        self._text, self._pixels = text_corpus(), image_corpus()

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> tuple[int, Bytes, Bytes]:
        text = _window(self._text, index, self._length)
        image = _window(self._pixels, index, IMAGE_SIDE * IMAGE_SIDE)
        return index, text, image.reshape(IMAGE_SIDE, IMAGE_SIDE)


def _window(corpus: Bytes, index: int, length: int) -> Bytes:
    begin = index * _STRIDE % (len(corpus) - length)
    return corpus[begin : begin + length]


def collate(samples: Sequence[tuple[int, Bytes, Bytes]]) -> Batch:
    """Returns one batch of samples."""
    ids, texts, images = zip(*samples, strict=True)
    return Batch(ids=ids, text=np.stack(texts), images=np.stack(images))


def held_out(data: Data, *, rank: int) -> Batch:
    """Returns a batch of this rank that no epoch contains."""
    windows, first = Windows(data), data.samples + rank * data.batch_size
    return collate([windows[first + number] for number in range(data.batch_size)])


class EpochBatches(Sampler[list[int]]):
    """The batches of one data-parallel rank in one epoch."""

    def __init__(self, data: Data, *, seed: int, rank: int, ranks: int) -> None:
        self.epoch = 0
        self.share = rank
        """The samples that this rank reads: every one of so many, from here on."""
        self.first = 0
        """Samples of this share that were read before: by ranks of another degree, or in batches of
        another size."""
        self._data, self._seed, self._ranks = data, seed, ranks
        if len(self) == 0:
            raise ValueError(
                f"{data.samples} samples do not fill one batch of {data.batch_size} "
                f"on each of {ranks} data-parallel ranks"
            )

    def __len__(self) -> int:
        left = self._data.samples // self._ranks - self.first
        return max(0, left) // self._data.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self._data.samples))
        random.Random(self._seed + self.epoch).shuffle(order)
        mine = order[self.share :: self._ranks]
        for number in range(len(self)):
            begin = self.first + number * self._data.batch_size
            yield mine[begin : begin + self._data.batch_size]


class ShareLoader(StatefulDataLoader[Batch]):  # type: ignore[misc]
    """A loader whose state says which share of the samples it reads.

    So the states of two ranks differ, as where loaders keep offsets into files of their own.
    """

    def __init__(self, *args: Any, order: EpochBatches, **kwargs: Any) -> None:
        self._order = order
        super().__init__(*args, batch_sampler=order, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position, and the share."""
        return {**super().state_dict(), "share": self._order.share}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the position of the share."""
        state = dict(state_dict)
        self._order.share = state.pop("share")
        super().load_state_dict(state)


class Redistributing:
    """A loader that also continues where ranks, batches or workers were others.

    The number of samples that a rank has read says where each rank continues. The epoch is part of
    the position, too.
    """

    def __init__(self, batches: Batches, order: EpochBatches, data: Data, ranks: int) -> None:
        self._batches, self._order, self._ranks = batches, order, ranks
        self._read_in = {"batch_size": data.batch_size, "num_workers": data.num_workers}

    def state_dict(self) -> dict[str, Any]:
        """Returns the inner loader's position, and the same in samples."""
        inner = self._batches.inner.state_dict()
        return {
            "inner": inner,
            "read_in": self._read_in,
            "epoch": self._order.epoch,
            "first": self._order.first,
            "taken": self._batches.taken,
            "ranks": self._ranks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the same rank."""
        if state["read_in"] != self._read_in:
            self._batches.go_on(state["epoch"], state["taken"])
            return
        self._order.epoch, self._order.first = state["epoch"], state["first"]
        self._batches.taken = state["taken"]
        self._batches.inner.load_state_dict(state["inner"])

    def load_state_dicts(self, states: Sequence[Any]) -> None:
        """Continue as a rank of another degree. Raises ValueError if the positions differ."""
        places = sorted({(state["epoch"], state["taken"]) for state in states})
        if len(places) != 1:
            raise ValueError(f"the ranks stopped at different positions of their epochs: {places}")
        ((epoch, taken),) = places
        # Stages and tensor-parallel peers have states as well, of the same samples.
        self._batches.go_on(epoch, taken * states[0]["ranks"] // self._ranks)


class _DieWithRank:
    """Makes a loader process die when its rank does, however that ends."""

    def __init__(self) -> None:
        self._rank_pid = os.getpid()

    def __call__(self, worker: int) -> None:  # noqa: ARG002
        die_with_parent(self._rank_pid)


def as_it_is(loader: Any) -> Any:
    """Returns the loader without a wrapper."""
    return loader


class Batches:
    """An endless stream over the epochs. `loader` is what a checkpoint manager gets.

    Without a generator of its own, the loader draws a seed from the global one at each epoch. A
    resumed run enters an epoch in the middle, and so draws once too often. If the data asks for
    that, `wrap` is what a program puts around such a loader to prevent it.
    """

    def __init__(
        self,
        data: Data,
        *,
        seed: int,
        rank: int,
        ranks: int,
        wrap: Callable[[Any], Any] = as_it_is,
    ) -> None:
        self._order = EpochBatches(data, seed=seed, rank=rank, ranks=ranks)
        self._size = data.batch_size
        own = torch.Generator().manual_seed(seed) if data.generator == "own" else None
        with warnings.catch_warnings():
            # torchdata 0.11 calls a function that torch 2.13 calls deprecated.
            warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
            loader: Any = ShareLoader(
                Windows(data),
                order=self._order,
                num_workers=data.num_workers,
                collate_fn=collate,
                generator=own,
                worker_init_fn=_DieWithRank(),
                multiprocessing_context="fork" if data.num_workers else None,
            )
        self.inner: Any = wrap(loader)
        self.taken = 0
        """The number of samples of this epoch that were read of each share so far."""
        self.loader: Any = self.inner
        if data.redistributes:
            self.loader = Redistributing(self, self._order, data, ranks)
        self._iterator: Any = None

    @property
    def epoch(self) -> int:
        """Returns the epoch of the newest batch."""
        return self._order.epoch

    def begin(self, epoch: int) -> None:
        """Set the epoch that a load has brought back, before the first batch."""
        self._order.epoch = epoch

    def go_on(self, epoch: int, taken: int) -> None:
        """Continue in an epoch after so many samples of each share, before the first batch."""
        self._order.epoch = epoch
        self._order.first = self.taken = taken

    def take(self) -> Batch:
        """Returns the next batch, from the next epoch if this one is used up."""
        if self._iterator is None:
            self._iterator = iter(self.inner)
        try:
            batch: Batch = next(self._iterator)
        except StopIteration:
            self._order.epoch += 1
            self._order.first = self.taken = 0
            self._iterator = iter(self.inner)
            batch = next(self._iterator)
        self.taken += self._size
        return batch

    def close(self) -> None:
        """End the loader processes now rather than when the last reference is dropped."""
        end = getattr(self._iterator, "_shutdown_workers", None)
        if end is not None:
            end()
        self._iterator = None
