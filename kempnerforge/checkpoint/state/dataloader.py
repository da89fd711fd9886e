"""A dataloader that resumes in the middle of an epoch without drawing from the global generators.

torch's loaders draw from the global generators when an epoch begins: ``iter()`` draws a seed for
the workers, and a sampler without its own generator draws the seed of its order, in ``iter()`` or
at the first batch. A resumed run enters the epoch a second time and repeats these draws, so all
later draws (dropout, for instance) differ from those of an uninterrupted run. torchdata's
``StatefulDataLoader`` restores its order, but still repeats the first of these draws.

:class:`ResumableDataLoader` enters the epoch again and then restores the generators. If the wrapped
loader has no position of its own, it starts from the generator state with which the epoch began,
which gives the same order, and skips the batches already taken.

Out of scope: a sampler or an ``IterableDataset`` without ``state_dict`` that draws from the global
generators during the epoch, interleaved with the draws of training; a loop that draws between
``iter()`` and the first batch; draws of a ``StatefulDataLoader``'s workers since the epoch began,
which torchdata does not restore.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch

from kempnerforge.checkpoint.state.rng import CUDA_KEYS, get_rng_state, set_rng_state

__all__ = ["ResumableDataLoader"]

_KEYS = frozenset({"begun", "begin", "taken", "generators", "position"})


class ResumableDataLoader:
    """Wraps a dataloader so that a resumed run gets the same batches and random numbers as an
    uninterrupted one.

    Works with a plain ``torch.utils.data.DataLoader``, a ``StatefulDataLoader``, or any iterable of
    batches. Iterate over it, and pass it to the manager, in place of the loader; all other
    attributes (``len``, ``sampler``, ``dataset``) are those of the loader. Not collective; to be
    used by the training thread.

    When a plain loader resumes, it reads the epoch's earlier batches again and discards them. The
    loader's own generator (``generator=``) and those of its samplers are saved as well.

    Args:
        loader: The dataloader to wrap.
    """

    load_state_dicts: Callable[[Sequence[Any]], None]
    """Defined only if the loader defines it: see ``RedistributableDataLoader``."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._has_position = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
        self._resumed: dict[str, Any] | None = None
        self._begun = False
        self._begin: dict[str, Any] | None = None
        self._taken = 0
        if hasattr(loader, "load_state_dicts"):
            self.load_state_dicts = partial(self._redistribute, loader.load_state_dicts)

    def __iter__(self) -> Iterator[Any]:
        """Yields the rest of the restored epoch the first time, and whole epochs after that."""
        resumed, self._resumed = self._resumed, None
        return _Batches(self._start() if resumed is None else self._resume(resumed), self)

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # not set yet, as while a copy is being made
            raise AttributeError(name)
        return getattr(self._loader, name)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position in the epoch, and the generator state with which it began."""
        if self._resumed is not None:
            return self._resumed
        return {
            "begun": self._begun,
            "begin": self._begin,
            "taken": self._taken,
            "generators": [own.get_state() for own in self._own_generators()],
            "position": self._loader.state_dict() if self._has_position else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next ``iter()`` continue from ``state``.

        Also accepts the wrapped loader's own state, if that loader has a ``state_dict``.

        Raises:
            ValueError: ``state`` comes from another kind of loader.
        """
        found = dict(state)
        if _KEYS - found.keys():
            own = [generator.get_state() for generator in self._own_generators()]
            found = {
                "begun": False,
                "begin": None,
                "taken": 0,
                "generators": own,
                "position": state,
            }
        self._require_same_kind(found)
        if self._has_position:
            self._loader.load_state_dict(found["position"])
        self._resumed = found

    def _require_same_kind(self, state: Mapping[str, Any]) -> None:
        if (state["position"] is not None) != self._has_position:
            kinds = ("a loader without state_dict", "a loader with state_dict")
            raise ValueError(
                f"the saved position is that of {kinds[state['position'] is not None]}, this is "
                f"{kinds[self._has_position]}; resume with the kind of loader that was saved"
            )
        if len(state["generators"]) != len(self._own_generators()):
            raise ValueError(
                f"the saved position has {len(state['generators'])} generators of the loader and "
                f"its samplers, this loader has {len(self._own_generators())}"
            )

    def _start(self) -> Iterator[Any]:
        self._begun, self._taken = True, 0
        if not self._has_position:
            self._begin = self._generators()
        return iter(self._loader)

    def _resume(self, state: Mapping[str, Any]) -> Iterator[Any]:
        if not state["begun"]:
            with _nothing_drawn():
                if self._has_position:
                    # A StatefulDataLoader enters its old epoch here, and the next one in iter().
                    self._loader.state_dict()
            self._set_own_generators(state["generators"])
            return self._start()
        self._begun, self._begin, self._taken = True, state["begin"], state["taken"]
        with _nothing_drawn():
            batches = self._enter_again()
        self._set_own_generators(state["generators"])
        return batches

    def _enter_again(self) -> Iterator[Any]:
        if self._begin is None:
            return iter(self._loader)
        set_rng_state(self._begin["global"])
        self._set_own_generators(self._begin["own"])
        batches: Iterator[Any] = iter(self._loader)
        for _ in islice(batches, self._taken):
            pass
        return batches

    def _redistribute(
        self, hand_over: Callable[[Sequence[Any]], None], states: Sequence[Any]
    ) -> None:
        hand_over([state["position"] for state in states])
        self._resumed = None

    def _generators(self) -> dict[str, Any]:
        """Returns the generators that an epoch can draw from when it begins: global and own."""
        common = {key: value for key, value in get_rng_state().items() if key not in CUDA_KEYS}
        return {"global": common, "own": [own.get_state() for own in self._own_generators()]}

    def _set_own_generators(self, states: Sequence[torch.Tensor]) -> None:
        for own, state in zip(self._own_generators(), states, strict=True):
            own.set_state(state)

    def _own_generators(self) -> list[torch.Generator]:
        batch_sampler = getattr(self._loader, "batch_sampler", None)
        samplers = (getattr(self._loader, "sampler", None), getattr(batch_sampler, "sampler", None))
        owners = (self._loader, batch_sampler, *samplers)
        found = [getattr(owner, "generator", None) for owner in owners]
        return list(dict.fromkeys(one for one in found if isinstance(one, torch.Generator)))


class _Batches(Iterator[Any]):
    """Iterator over one epoch that counts batches for its loader; else as the loader's iterator."""

    def __init__(self, batches: Iterator[Any], loader: ResumableDataLoader) -> None:
        self._batches, self._of = batches, loader

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
        except StopIteration:
            self._of._begun, self._of._begin, self._of._taken = False, None, 0
            raise
        self._of._taken += 1
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "_batches":
            raise AttributeError(name)
        found: Any = getattr(self._batches, name)
        return found


@contextmanager
def _nothing_drawn() -> Generator[None, None, None]:
    """Restores the global generators on exit to their state on entry."""
    now = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(now)
