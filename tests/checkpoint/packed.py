"""Tensor subclasses that hold other tensors, like quantised weights and low-bit moments."""

from typing import Any

import torch
from torch.utils import _pytree as pytree

_aten = torch.ops.aten


class Packed(torch.Tensor):
    """Shows float32; holds codes of eight bits, and a scale."""

    codes: torch.Tensor
    scale: torch.Tensor
    context: Any

    @staticmethod
    def __new__(cls, codes: torch.Tensor, scale: torch.Tensor, context: Any = None) -> "Packed":
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, codes.shape, dtype=torch.float32, device=codes.device
        )
        found: Packed = made
        return found

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, context: Any = None) -> None:
        self.codes, self.scale, self.context = codes, scale, context

    @classmethod
    def of(cls, value: torch.Tensor, context: Any = None) -> "Packed":
        """The nearest one to ``value``."""
        scale = value.abs().max().clamp(min=1e-12) / 127
        return cls((value / scale).round().to(torch.int8), scale, context)

    def numbers(self) -> torch.Tensor:
        """What it shows."""
        return self.codes.float() * self.scale

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["codes", "scale"], self.context

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, size: Any, stride: Any) -> "Packed":
        return cls(inner["codes"], inner["scale"], context)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({self.codes.tolist()})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        first = args[0]
        if func is _aten.copy_.default and isinstance(first, Packed):
            source = args[1] if isinstance(args[1], Packed) else cls.of(args[1])
            first.codes.copy_(source.codes)
            first.scale.copy_(source.scale)
            return first
        if func in (_aten.detach.default, _aten.alias.default, _aten.clone.default):
            parts = func(first.codes), func(first.scale)
            return type(first)(*parts, first.context)
        args, kwargs = pytree.tree_map(_shown, (args, kwargs or {}))
        return func(*args, **kwargs)


class OtherPacked(Packed):
    """The same in another class."""


class Nested(torch.Tensor):
    """Holds a wrapper and a plain tensor."""

    bias: torch.Tensor

    @staticmethod
    def __new__(cls, inner: Packed, bias: torch.Tensor) -> "Nested":
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=torch.float32, device=inner.device
        )
        found: Nested = made
        return found

    def __init__(self, inner: Packed, bias: torch.Tensor) -> None:
        self.packed, self.bias = inner, bias

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["packed", "bias"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, context: Any, size: Any, stride: Any) -> "Nested":
        return cls(inner["packed"], inner["bias"])

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Nested({self.packed!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in (_aten.detach.default, _aten.alias.default, _aten.clone.default):
            return cls(func(args[0].packed), func(args[0].bias))
        raise NotImplementedError(str(func))


class Opaque(torch.Tensor):
    """Does not say what it consists of."""

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> "Opaque":
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, dtype=value.dtype, device=value.device
        )
        found: Opaque = made
        return found

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return "Opaque()"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in (_aten.detach.default, _aten.alias.default):
            return cls(args[0].value)
        raise NotImplementedError(str(func))


def _shown(value: Any) -> Any:
    return value.numbers() if isinstance(value, Packed) else value
