"""A dataloader that goes on in the middle of an epoch without drawing from the global generators.

torch's loaders draw from the global generators when an epoch begins: ``iter()`` a seed for the
workers, a sampler without a generator of its own the seed of its order, at ``iter()`` or at the
first batch. A resumed run enters the epoch once more, so it makes these draws again, and everything
after them, dropout for instance, differs from the run that was never stopped. torchdata's
``StatefulDataLoader`` brings back its order and still makes the first of these draws.

:class:`ResumableDataLoader` enters the epoch again with the generators put back afterwards. Where
the loader within has no position of its own, it does so from the generators that the epoch began
with, which gives the same order, and passes over the batches that were taken.

Out of scope: a sampler or an ``IterableDataset`` without ``state_dict`` that draws from the global
generators while the epoch goes on, between draws of the training itself; a loop that draws between
``iter()`` and the first batch; what the workers of a ``StatefulDataLoader`` have drawn since the
epoch began, which torchdata does not bring back.
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
    """Wraps a dataloader so that a resumed run gets the batches and the random numbers of one that
    was never stopped.

    For a plain ``torch.utils.data.DataLoader``, a ``StatefulDataLoader``, or any iterable of
    batches. Iterate over it, and give it to the manager, in place of the loader; everything else
    (``len``, ``sampler``, ``dataset``) is the loader's own. Not collective; for the thread that
    trains.

    A plain loader reads the batches of the epoch so far once more when it resumes. The loader's own
    generator (``generator=``) and those of its samplers are saved as well.

    Args:
        loader: The dataloader.
    """

    load_state_dicts: Callable[[Sequence[Any]], None]
    """There where the loader has it: see ``RedistributableDataLoader``."""

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
        """The rest of the epoch that was loaded, once; then whole epochs."""
        resumed, self._resumed = self._resumed, None
        return _Batches(self._start() if resumed is None else self._resume(resumed), self)

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self._loader, name)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is in its epoch, and how that epoch began."""
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
        """Go on from there at the next ``iter()``.

        Takes what the loader within saved by itself, too, where that has a position of its own.

        Raises:
            ValueError: ``state`` was saved around, or by, another kind of loader.
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
            kinds = ("a loader without state_dict", "a loader with a position of its own")
            raise ValueError(
                f"the position is that of {kinds[state['position'] is not None]}, this is "
                f"{kinds[self._has_position]}; resume with the kind of loader that was saved"
            )
        if len(state["generators"]) != len(self._own_generators()):
            raise ValueError(
                f"the position has {len(state['generators'])} generators of the loader and its "
                f"samplers, this loader has {len(self._own_generators())}"
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
                    # A StatefulDataLoader enters its old epoch here, and in iter() the next.
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
        """Those that an epoch may draw from when it begins: of the process, and the loader's."""
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
    """The batches of one epoch, counted for its loader; otherwise the loader's own iterator."""

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
    """Put the global generators back to where they are now."""
    now = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(now)
