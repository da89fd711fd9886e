"""Checks, after a restore, that the program's own ``state_dict()`` returns what was saved.

Values filled in place need no check. Values restored through the program's own code
(``load_state_dict`` of a module with hooks, or of an optimizer that wraps another one) can be cast,
dropped or recomputed there, and then the run does not continue exactly. For all such values, names,
types, dtypes and shapes are compared, and the bits of a sample or of all.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.state.tensor_kinds import is_dense, is_wrapper, local_of, take_apart

__all__ = ["Comparison", "RestoreCheck"]

# Elements compared at each end of a tensor. A cast or a recomputation alters these as well.
_SAMPLE = 1024
_SHOWN = 5
_NUMBERS = (int, float, complex, str, bytes)


class RestoreCheck(StrEnum):
    """How the state after a load is compared with what was saved."""

    sample = "sample"
    """Names, types and shapes of all values restored through the program's own code, and the bits
    at both ends of each."""
    all = "all"
    """The bits of all of them."""
    off = "off"
    """Nothing."""


class Comparison:
    """Compares saved values with those that the program has now.

    Args:
        policy: How much to compare.
    """

    def __init__(self, policy: RestoreCheck) -> None:
        self._policy = policy
        self._differences: list[str] = []

    def compare(self, name: str, saved: Any, now: Any) -> None:
        """Records every difference between ``saved`` and ``now``."""
        if self._policy is not RestoreCheck.off:
            self._compare(name, saved, now)

    def require_none(self, what: str) -> None:
        """Raises if there was any difference.

        Args:
            what: Names the code that restored the values.

        Raises:
            StateMismatchError: At least one value differs.
        """
        if self._differences:
            raise StateMismatchError(
                f"{what} does not restore what its state_dict() returned: "
                f"{'; '.join(self._differences[:_SHOWN])}"
                f"{' ...' if len(self._differences) > _SHOWN else ''}; the run would not continue "
                "exactly. Fix its load_state_dict, exclude these keys from loading, or set "
                "check_restored='off'"
            )

    def _compare(self, name: str, saved: Any, now: Any) -> None:
        if isinstance(saved, torch.Tensor) and isinstance(now, torch.Tensor):
            self._compare_tensors(name, saved, now)
        elif isinstance(saved, Mapping) and isinstance(now, Mapping):
            self._compare_mappings(name, saved, now)
        elif isinstance(saved, list | tuple) and isinstance(now, list | tuple):
            if len(saved) != len(now):
                self._note(name, f"{len(saved)} values", f"{len(now)}")
            for index, (one, other) in enumerate(zip(saved, now, strict=False)):
                self._compare(f"{name}.{index}", one, other)
        elif isinstance(saved, torch.Tensor) or isinstance(now, torch.Tensor):
            self._note(name, type(saved).__name__, type(now).__name__)
        elif isinstance(saved, _NUMBERS) and not _is_same_number(saved, now):
            self._note(name, repr(saved), repr(now))

    def _compare_mappings(
        self, name: str, saved: Mapping[Any, Any], now: Mapping[Any, Any]
    ) -> None:
        for key in saved:
            if key in now:
                self._compare(f"{name}.{key}", saved[key], now[key])
            elif any(True for _ in _values(saved[key])):
                self._note(f"{name}.{key}", "a value", "none")

    def _compare_tensors(self, name: str, saved: torch.Tensor, now: torch.Tensor) -> None:
        if _traits(saved) != _traits(now):
            self._note(name, _traits(saved), _traits(now))
            return
        one, other = local_of(saved), local_of(now)
        if is_wrapper(one) and is_wrapper(other):
            parts = take_apart(other).parts
            for key, part in take_apart(one).parts.items():
                self._compare(f"{name}.{key}", part, parts.get(key))
        elif is_dense(one) and not self._same_bits(one.detach(), other.detach()):
            self._note(name, "other values", "these")

    def _same_bits(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        ends = slice(None, _SAMPLE), slice(-_SAMPLE, None)
        parts = (slice(None),) if self._policy is RestoreCheck.all else ends
        mine, theirs = one.reshape(-1), other.reshape(-1)
        return all(
            torch.equal(_bits(mine[part]), _bits(theirs[part]).to(mine.device)) for part in parts
        )

    def _note(self, name: str, saved: object, now: object) -> None:
        self._differences.append(f"{name} was {saved}, is {now}")


def _is_same_number(saved: Any, now: Any) -> bool:
    both_nan = saved != saved and now != now
    return both_nan or (isinstance(now, _NUMBERS) and saved == now)


def _values(value: Any) -> list[Any]:
    """Returns the contents of a value; an empty container has none."""
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in _values(item)]
    return [] if value is None else [value]


def _traits(value: torch.Tensor) -> tuple[object, ...]:
    """Returns the properties of a tensor, besides its elements, that must be restored."""
    local = local_of(value)
    placed = tuple(value.placements) if isinstance(value, DTensor) else None
    kind = type(local).__name__ if is_wrapper(local) else "tensor"
    return kind, str(value.dtype), tuple(value.shape), tuple(local.shape), placed


def _bits(value: torch.Tensor) -> torch.Tensor:
    plain = value.resolve_conj().resolve_neg().as_subclass(torch.Tensor)
    return plain.contiguous().reshape(-1).view(torch.uint8)
