"""A tensor subclass that holds numbers in eight bits, as in low-bit optimizers and weights.

It claims to be float32 and holds codes and one scale. A copy into it rounds; every other operation
is applied to the unpacked float32 tensor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

_aten: Any = torch.ops.aten
_LEAST = 1e-12
_MOST_CODE = 127
_KEEPING = (_aten.detach.default, _aten.alias.default, _aten.clone.default, _aten.view.default)
"""Operations whose result is a packed tensor again."""


class Packed(torch.Tensor):
    """One-byte codes and their scale."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> Packed:
        found: Packed = torch.Tensor._make_wrapper_subclass(
            cls, codes.shape, dtype=torch.float32, device=codes.device
        )
        return found

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        self.codes, self.scale = codes, scale

    @classmethod
    def of(cls, values: Tensor) -> Packed:
        """Returns the nearest packed tensor."""
        scale = values.abs().max().clamp(min=_LEAST) / _MOST_CODE
        return cls((values / scale).round().to(torch.int8), scale)

    def unpacked(self) -> Tensor:
        """Returns the unpacked values."""
        return self.codes.float() * self.scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @classmethod
    def __tensor_unflatten__(
        cls,
        inner: dict[str, Tensor],
        context: None,
        size: Any,
        stride: Any,
    ) -> Packed:
        return cls(inner["codes"], inner["scale"])

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Packed({tuple(self.shape)}, scale {float(self.scale):.3g})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any, kwargs: Any = None
    ) -> Any:
        if func is _aten.copy_.default and isinstance(args[0], cls):
            source = args[1] if isinstance(args[1], cls) else cls.of(args[1])
            args[0].codes.copy_(source.codes)
            args[0].scale.copy_(source.scale)
            return args[0]
        if func in _KEEPING and isinstance(args[0], cls):
            scale = args[0].scale
            kept = scale.clone() if func is _aten.clone.default else scale
            return cls(func(args[0].codes, *args[1:], **(kwargs or {})), kept)
        return func(*tree_map(unpacked, args), **tree_map(unpacked, kwargs or {}))


def unpacked(value: Any) -> Any:
    """Unpacks a packed tensor; returns anything else as it is."""
    return value.unpacked() if isinstance(value, Packed) else value
