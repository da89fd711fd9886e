"""Decomposes tensors that are more than elements in dense memory, and rebuilds them.

A *wrapper* is a tensor subclass that holds other tensors (``__tensor_flatten__``): a quantised
weight, a low-bit moment. Its inner tensors are saved, with the name of the class. On load the class
is looked up among the modules that the program has already imported, so a checkpoint cannot cause
an import or run code. Distributed tensors are wrappers to torch but not here, because their
placement is handled separately.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from kempnerforge.checkpoint.errors import StateMismatchError

__all__ = [
    "Wrapper",
    "find_class",
    "is_dense",
    "is_wrapper",
    "local_of",
    "problem_of",
    "rebuild_wrapper",
    "take_apart",
    "tensors_in",
]

_ORDINARY = (torch.Tensor, nn.Parameter, nn.Buffer)
_DENSE_TYPES = frozenset(_ORDINARY)
# Exactly these types: an enum member can be a str too, and its class would be lost.
_PLAIN = frozenset({str, int, float, bool, bytes, type(None), torch.dtype, torch.Size})
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """A wrapper, decomposed."""

    module: str
    """Module that defines its class."""
    qualname: str
    context: Any
    """The context from which its class rebuilds it, besides the tensors; None if it is not a plain
    value, and the wrapper can only be filled in place."""
    described: str
    """``repr`` of the context; without memory addresses if it is not a plain value."""
    parts: Mapping[str, torch.Tensor]
    """Its tensors by attribute; they can be wrappers as well."""

    @property
    def has_plain_context(self) -> bool:
        """Whether :func:`rebuild_wrapper` can build it in another process."""
        return self.described == repr(self.context)


def local_of(value: torch.Tensor) -> torch.Tensor:
    """Returns the local part of a distributed tensor, fully computed; any other tensor itself."""
    local = value._local_tensor if isinstance(value, DTensor) else value
    if isinstance(local, AsyncCollectiveTensor):
        waited: torch.Tensor = local.wait()
        return waited
    return local


def is_dense(value: torch.Tensor) -> bool:
    """Whether a tensor, or the local part of a distributed one, is plain elements in memory."""
    local = value._local_tensor if isinstance(value, DTensor) else value
    known = type(local) in _DENSE_TYPES or _is_only_named(local)
    if not known or local.layout is not torch.strided:
        return False
    return not (local.is_meta or local.is_quantized or local.is_nested)


def _is_only_named(value: torch.Tensor) -> bool:
    """Whether a subclass leaves all operations to torch; a lazy parameter does not count."""
    ordinary = type(value).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
    return ordinary and not (isinstance(value, ShardedTensor) or nn.parameter.is_lazy(value))


def is_wrapper(value: object) -> bool:
    """Whether a value is a tensor subclass that holds other tensors, but is not distributed."""
    return (
        isinstance(value, torch.Tensor)
        and type(value) not in _DENSE_TYPES
        and not isinstance(value, DTensor | AsyncCollectiveTensor)
        and not value.is_nested
        and is_traceable_wrapper_subclass(value)
    )


def problem_of(value: torch.Tensor) -> str | None:
    """Returns why this tensor cannot be saved, as text to follow its name; None if it can."""
    local = local_of(value)
    if isinstance(local, ShardedTensor):
        return (
            "is a ShardedTensor of the first FSDP; leave its state_dict_type at FULL_STATE_DICT, "
            "or use fully_shard"
        )
    if nn.parameter.is_lazy(local):
        return "has no shape yet; run the model once before it is saved or loaded"
    if local.is_meta:
        return "is on the meta device and holds no data"
    if local.is_nested:
        return "is a nested tensor, which cannot be saved; save its components"
    if local.layout is torch._mkldnn:  # type: ignore[attr-defined]
        return "has the layout of oneDNN, which cannot be saved; call to_dense()"
    if type(local) in _DENSE_TYPES or _is_only_named(local) or is_wrapper(local):
        return None
    cls = type(local)
    return (
        f"is a {cls.__module__}.{cls.__qualname__}, a tensor subclass that cannot be taken "
        "apart; give it __tensor_flatten__ and __tensor_unflatten__"
    )


def take_apart(value: torch.Tensor) -> Wrapper:
    """Returns the tensors of a wrapper, with its class and context."""
    flatten: Any = value
    names, context = flatten.__tensor_flatten__()
    cls = type(value)
    is_plain = _is_plain(context)
    return Wrapper(
        module=cls.__module__,
        qualname=cls.__qualname__,
        context=context if is_plain else None,
        described=repr(context) if is_plain else _ADDRESS.sub("", repr(context)),
        parts={name: getattr(value, name) for name in names},
    )


def rebuild_wrapper(
    taken: Wrapper, *, size: tuple[int, ...], stride: tuple[int, ...], name: str
) -> torch.Tensor:
    """Rebuilds a wrapper from the result of :func:`take_apart`.

    Args:
        taken: Class, context and tensors.
        size: Outer shape of the wrapper.
        stride: Outer strides of the wrapper.
        name: Name of the tensor, for errors.

    Raises:
        StateMismatchError: The program has no such tensor subclass.
    """
    cls: Any = find_class(taken.module, taken.qualname, name=name)
    rebuilt: torch.Tensor = cls.__tensor_unflatten__(
        dict(taken.parts), taken.context, torch.Size(size), stride
    )
    return rebuilt


def find_class(module: str, qualname: str, *, name: str) -> type[torch.Tensor]:
    """Finds a tensor subclass that the program has imported.

    Raises:
        StateMismatchError: There is none with that name.
    """
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, torch.Tensor):
        return found
    raise StateMismatchError(
        f"{name} was saved as a {module}.{qualname}, a tensor subclass that this program has not "
        "imported; import it before the checkpoint is loaded"
    )


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple | set | frozenset):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return type(value) in _PLAIN
