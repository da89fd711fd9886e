"""Model and optimizer state, by the global names of parameters.

The state is assembled here and not with ``get_optimizer_state_dict``: that helper steps the
optimizer to create missing state, which changes training, fails for some optimizers and invents
state for parameters that have none. Here a save contains exactly the state that exists, and a
restore sets exactly what was saved.

The model's own ``state_dict()``, hooks included, defines its state. An entry is saved as one of:

- a dense or distributed tensor, by name;
- the inner tensors of a wrapper (:mod:`tensor_kinds`), each by name, and its class;
- anything else (containers, sparse and quantised tensors) as one value.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX
from torch.optim import Optimizer

from kempnerforge.checkpoint.state import global_names, optimizer_state
from kempnerforge.checkpoint.state.rank_local import (
    keeps_its_keys,
    needs_encoding,
    require_revivable,
)
from kempnerforge.checkpoint.state.tensor_kinds import (
    is_dense,
    is_wrapper,
    local_of,
    problem_of,
    take_apart,
    tensors_in,
)
from kempnerforge.checkpoint.state.whole import Whole

__all__ = [
    "CLASS_KEY",
    "MODEL",
    "AssembledState",
    "LiveModel",
    "assemble",
    "is_extra_state",
    "is_wrapped",
    "mesh_signature",
    "takes_argument",
]

MODEL = "model."
"""Prefix of the flat names of a model's entries."""
CLASS_KEY = "__class__"
"""Suffix for the entry that describes a wrapper: module, name and context of its class."""


class LiveModel:
    """A model's own tensors; computes each view of them at most once.

    Args:
        model: The model; it is neither changed nor copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self.module = global_names.unwrapped(model)

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by the module's own names; a shared one has its first name."""
        return dict(self.module.named_parameters())

    @cached_property
    def names(self) -> dict[int, str]:
        """Global name of each parameter object, by its ``id``."""
        return {id(param): self.plain_name(name) for name, param in self.parameters.items()}

    @cached_property
    def state(self) -> dict[str, Any]:
        """The contents of ``state_dict`` by the module's own names; parameters are not detached."""
        with torch.no_grad():
            return _state_dict_of(self.module)

    @cached_property
    def entries(self) -> dict[str, Any]:
        """The contents of ``state_dict``, by global name."""
        return {self.plain_name(name): value for name, value in self.state.items()}

    @cached_property
    def buffers(self) -> frozenset[str]:
        """The module's own names of its buffers; a shared one appears under all of its names."""
        return frozenset(name for name, _ in self.module.named_buffers(remove_duplicate=False))

    @cached_property
    def memory(self) -> frozenset[int]:
        """Start addresses of the memory of the module's own parameters and buffers."""
        own = [*self.module.parameters(), *self.module.buffers()]
        return frozenset(place for tensor in own for place in _places(tensor))

    def flat_buffers(self) -> frozenset[str]:
        """Flat names of entries that are buffers or extra state."""
        return frozenset(
            f"{MODEL}{self.plain_name(name)}"
            for name in self.state
            if name in self.buffers or is_extra_state(name)
        )

    def plain_name(self, name: str) -> str:
        """Returns the global name for one of the module's own names."""
        return global_names.plain_name(self.module, name)

    def holds(self, value: torch.Tensor) -> bool:
        """Whether an entry shares the module's memory, so that filling it fills the module."""
        places = _places(value)
        return bool(places) and all(place in self.memory for place in places)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledState:
    """The state to save; tensors are the live ones."""

    shared: dict[str, Any]
    """The values that all ranks save together, by global names."""
    own: dict[str, Any]
    """Optimizer state of this rank alone, for its own file; see :mod:`rank_local`."""


def assemble(live: LiveModel, optimizer: Optimizer) -> AssembledState:
    """Collects the state to save. Changes nothing and draws no random numbers.

    Raises:
        StateMismatchError: The optimizer holds a parameter that the model does not have.
        TypeError: The optimizer or a module holds a value that could not be restored exactly.
    """
    optimizer_state.require_parameters(optimizer, live.names)
    groups = [_named_group(group, live.names) for group in getattr(optimizer, "param_groups", ())]
    captured = optimizer_state.capture(optimizer, live.names)
    for part, values in captured.own.items():
        _require_revivable(values, live.module, f"optimizer.{part}", depth=_DEPTHS.get(part, 0))
    model = {
        name: value
        if isinstance(value, torch.Tensor) and is_dense(value)
        else _stored(f"{MODEL}{name}", value)
        for name, value in live.entries.items()
    }
    return AssembledState(
        shared={
            "model": model,
            "optimizer": {"state": captured.shared, "param_groups": groups},
        },
        own=captured.own,
    )


_DEPTHS = {"state": 2, "keys": 1, "extra": 1}
"""Nesting depth of the values in each part of an optimizer's rank-local state."""


def _require_revivable(values: Any, model: nn.Module, where: str, *, depth: int) -> None:
    if depth == 0:
        require_revivable(values, model, where)
        return
    for key, value in values.items():
        _require_revivable(value, model, f"{where}.{key}", depth=depth - 1)


def is_extra_state(name: str) -> bool:
    """Whether an entry of a model comes from a module's ``get_extra_state``.

    Such a value can be created for the caller and have any size; only ``set_extra_state`` can
    restore it.
    """
    return name.rpartition(".")[2] == _EXTRA_STATE_KEY_SUFFIX


def is_wrapped(value: object) -> bool:
    """Whether an entry is a wrapper, or a distributed tensor whose local part is one."""
    return isinstance(value, torch.Tensor) and is_wrapper(local_of(value))


def mesh_signature(parameters: Iterable[torch.Tensor]) -> list[dict[str, list[Any]]]:
    """Returns names and sizes of the axes of all device meshes that the parameters are on."""
    meshes = {param.device_mesh for param in parameters if isinstance(param, DTensor)}
    found = {(tuple(mesh.mesh_dim_names or ()), tuple(mesh.shape)) for mesh in meshes}
    return [{"axes": list(axes), "sizes": list(sizes)} for axes, sizes in sorted(found)]


def _state_dict_of(module: nn.Module) -> dict[str, Any]:
    """Calls ``state_dict``, which the program may have overridden with fewer arguments."""
    if type(module).state_dict is nn.Module.state_dict:
        return module.state_dict(keep_vars=True)
    if takes_argument(module.state_dict, "keep_vars"):
        return module.state_dict(keep_vars=True)
    return module.state_dict()


def takes_argument(function: Callable[..., Any], name: str) -> bool:
    """Whether a method, which the program may have overridden, takes a keyword argument."""
    known = inspect.signature(function).parameters
    return name in known or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())


def _places(tensor: torch.Tensor) -> tuple[int, ...]:
    """Returns the start address of each of a tensor's parts; none for a part without memory."""
    local = local_of(tensor)
    if is_wrapper(local):
        return tuple(place for part in take_apart(local).parts.values() for place in _places(part))
    if not is_dense(local):
        return ()
    return (local.untyped_storage().data_ptr(),)


def _stored(name: str, value: Any) -> Any:
    """Returns the form in which an entry of a model is saved."""
    if not isinstance(value, torch.Tensor):
        return _stored_value(name, value)
    if is_dense(value):
        return value
    problem = problem_of(value)
    if problem is not None:
        raise TypeError(f"{name} {problem}")
    local = local_of(value)
    if is_wrapper(local):
        taken = take_apart(local)
        parts = {key: _stored(f"{name}.{key}", part) for key, part in taken.parts.items()}
        described = [taken.module, taken.qualname, taken.context, taken.described]
        return {**parts, CLASS_KEY: Whole(described)}
    return Whole(local.detach())


def _stored_value(name: str, value: Any) -> Any:
    if needs_encoding(value):
        raise TypeError(
            f"{name}: a container with a tensor that is distributed, nested or of a subclass could "
            "not be restored exactly; give such a tensor an entry of its own"
        )
    return Whole(value) if isinstance(value, Mapping | list | tuple) else value


def _named_group(group: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    options = {key: _stored_option(key, group[key]) for key in group if key != "params"}
    return {**options, "params": [names[id(param)] for param in group["params"]]}


def _stored_option(key: str, value: Any) -> Any:
    tensors = list(tensors_in(value))
    if any(isinstance(part, DTensor) or not is_dense(part) for part in tensors):
        raise TypeError(
            f"entry {key!r} of a parameter group holds a tensor that is distributed, sparse or of "
            "a subclass, which could not be restored exactly; use a plain tensor"
        )
    # DCP turns a tuple of tensors into a list, and drops an empty dict.
    if (type(value) is tuple and tensors) or (type(value) is dict and not value):
        return Whole(value)
    if isinstance(value, Mapping) and not keeps_its_keys(value):
        raise TypeError(
            f"entry {key!r} of a parameter group holds a dict that is empty or has keys other "
            "than strings, which could not be restored exactly; use names as keys"
        )
    if not keeps_its_keys(value):
        raise TypeError(
            f"entry {key!r} of a parameter group holds a {type(value).__qualname__}, which could "
            "not be restored exactly; use numbers, strings, lists, tuples and dicts"
        )
    return value
