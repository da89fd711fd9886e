"""Rank-local values: encodes them for the rank's own file, and decodes them.

Shards hold dense tensors by name, and DCP's format turns every key of a dict into a string and
drops empty dicts. Values that do not fit are kept unchanged in the rank's own file, and restored
bit for bit in the same layout of ranks:

- statistics computed from the local shard of a parameter (factored second moments, norms): plain
  tensors that differ by rank under one name, or distributed tensors with other placements;
- tensor subclasses that hold other tensors (:mod:`tensor_kinds`), sparse tensors;
- containers with keys other than strings, tuples, empty dicts;
- state that only an optimizer's own ``state_dict()`` contains (:mod:`optimizer_state`);
- distributed tensors in ``extra`` and in the state of a scheduler.

In another layout they are refused, except entries without tensors: there all ranks get rank 0's
value.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from kempnerforge.checkpoint.archives.plain_values import encode_plain
from kempnerforge.checkpoint.errors import RedistributionError, StateMismatchError
from kempnerforge.checkpoint.state.tensor_kinds import (
    Wrapper,
    find_class,
    is_dense,
    is_wrapper,
    local_of,
    problem_of,
    rebuild_wrapper,
    take_apart,
    tensors_in,
)

__all__ = [
    "OWN_KEY",
    "encode",
    "is_beyond_first_format",
    "keeps_its_keys",
    "needs_encoding",
    "require_known_meshes",
    "require_revivable",
    "revive",
    "shared_remainder",
]

OWN_KEY = "optimizer"
"""Key of the optimizer's part in the rank's file."""
_KIND = "kempnerforge.kind"
_PLAIN_KEYS = (str, int, float, bool, type(None))
_LEAVES = frozenset({*_PLAIN_KEYS, complex, bytes, np.ndarray, torch.dtype, torch.Size})
_CONTAINERS = (list, tuple, dict, OrderedDict)


def keeps_its_keys(value: Any) -> bool:
    """Whether a value saved in shards would be restored with the same keys and types."""
    if isinstance(value, Mapping):
        return (
            type(value) is dict
            and bool(value)
            and all(isinstance(key, str) and keeps_its_keys(item) for key, item in value.items())
        )
    if isinstance(value, tuple):
        return (
            type(value) is tuple
            and not any(True for _ in tensors_in(value))
            and all(map(keeps_its_keys, value))
        )
    return not isinstance(value, list) or all(map(keeps_its_keys, value))


def needs_encoding(value: Any) -> bool:
    """Whether a value holds a tensor that no plain file can hold."""
    return any(
        isinstance(tensor, DTensor) or is_wrapper(tensor) or problem_of(tensor) is not None
        for tensor in tensors_in(value)
    )


def encode(value: Any, where: str) -> Any:
    """Encodes a value as a plain one; the tensors in the result are the live ones.

    Args:
        value: A value of a kind listed at the head of this module.
        where: Its name, for errors.

    Raises:
        TypeError: It could not be rebuilt in a later process.
    """
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value, where)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, _PLAIN_KEYS):
                raise TypeError(
                    f"{where} has a key of type {type(key).__name__}, which no later process can "
                    "look up; use the names or the indices of parameters as keys"
                )
    elif not isinstance(value, list | tuple):
        if type(value) not in _LEAVES:
            encode_plain(value, what=where)  # a leaf; the error names it
        return value
    if type(value) not in _CONTAINERS:
        cls = type(value)
        raise TypeError(
            f"{where} is a {cls.__module__}.{cls.__qualname__}, which would be restored as another "
            "type; use dicts, lists and tuples"
        )
    if isinstance(value, Mapping):
        encoded = {key: encode(item, where) for key, item in value.items()}
        return (
            encoded if type(value) is dict else {_KIND: "ordered", "items": list(encoded.items())}
        )
    return type(value)(encode(item, where) for item in value)


def _encode_tensor(value: torch.Tensor, where: str) -> dict[str, Any]:
    problem = problem_of(value)
    if problem is not None:
        raise TypeError(f"{where} {problem}")
    if isinstance(value, DTensor):
        mesh = value.device_mesh
        local = local_of(value)
        return {
            _KIND: "dtensor",
            "tensor": local.detach() if is_dense(local) else _encode_tensor(local, where),
            "device": mesh.device_type,
            "axes": list(mesh.mesh_dim_names or ()),
            "sizes": list(mesh.shape),
            "placements": [_describe(placement, where) for placement in value.placements],
            "shape": list(value.shape),
            "stride": list(value.stride()),
        }
    value = local_of(value)
    if is_wrapper(value):
        return _encode_wrapper(value, where)
    found: dict[str, Any] = {
        _KIND: "tensor",
        "tensor": _plain(value, where),
        "device": value.device.type,
    }
    if type(value) is not torch.Tensor:
        found["class"] = [type(value).__module__, type(value).__qualname__]
    if isinstance(value, nn.Parameter):
        found["requires_grad"] = value.requires_grad
    return found


def _plain(value: torch.Tensor, where: str) -> torch.Tensor:
    if type(value) not in (torch.Tensor, nn.Parameter) and vars(value):
        raise TypeError(
            f"{where} is a {type(value).__qualname__} with attributes ({', '.join(vars(value))}), "
            "which would not be restored"
        )
    value = value.detach()
    return value if type(value) is torch.Tensor else value.as_subclass(torch.Tensor)


def _encode_wrapper(value: torch.Tensor, where: str) -> dict[str, Any]:
    taken = take_apart(value)
    if not taken.has_plain_context:
        raise TypeError(
            f"{where} is a {taken.module}.{taken.qualname} whose context {taken.described} is not "
            "a plain value and could not be restored"
        )
    return {
        _KIND: "wrapper",
        "class": [taken.module, taken.qualname],
        "context": taken.context,
        "parts": {name: _encode_tensor(part, where) for name, part in taken.parts.items()},
        "shape": list(value.shape),
        "stride": list(value.stride()),
    }


def shared_remainder(saved: Mapping[str, Any], *, path: str) -> dict[str, Any]:
    """Returns the part of a rank's own optimizer state that is valid for all ranks of any layout.

    Raises:
        RedistributionError: There is other state, bound to single ranks.
    """
    bound = [
        f"{name}.{key}"
        for name, state in saved.get("state", {}).items()
        for key, value in state.items()
        if not keeps_its_keys(value) or any(tensor.dim() for tensor in tensors_in(value))
    ]
    rest = {key: saved[key] for key in ("extra", "keys") if key in saved}
    for values in rest.values():
        bound += [key for key, value in values.items() if any(True for _ in tensors_in(value))]
    if "whole" in saved:
        bound.append("optimizer.state_dict()")
    if bound:
        raise RedistributionError(
            f"{path}: {len(bound)} entries of the optimizer's state belong to single ranks of the "
            f"layout that saved them, the first: {bound[0]}; resume with the same layout of ranks, "
            "or pass exclude_keys=['optimizer'] to start with fresh optimizer state",
            path=path,
        )
    return {**rest, "state": saved["state"]} if "state" in saved else rest


def is_beyond_first_format(own: Mapping[str, Any]) -> bool:
    """Whether an optimizer's rank-local state has a form unknown to format 1 of the manifest."""
    known = {"tensor", "dtensor"}
    return bool({"keys", "whole"} & own.keys()) or not known.issuperset(_kinds_in(own))


def _kinds_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if _KIND in value:
            yield "subclass" if "class" in value else value[_KIND]
        for item in value.values():
            yield from _kinds_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _kinds_in(item)


def revive(value: Any, model: nn.Module, *, name: str, param: torch.Tensor | None = None) -> Any:
    """Decodes a value, onto the kind of device and the mesh that it was on.

    The device itself is that of the parameters, because the current device differs by thread.

    Args:
        value: A result of :func:`encode`.
        model: The current model.
        name: Name of the value, for errors.
        param: The parameter whose state it is; None for any other value.

    Raises:
        StateMismatchError: The model has no mesh like the one it was on, or the program does not
            have its class.
    """
    if isinstance(value, list | tuple):
        return type(value)(revive(item, model, name=name, param=param) for item in value)
    if not isinstance(value, Mapping):
        return value
    if _KIND not in value:
        return {key: revive(item, model, name=name, param=param) for key, item in value.items()}
    if value[_KIND] == "ordered":
        items = ((key, revive(item, model, name=name, param=param)) for key, item in value["items"])
        return OrderedDict(items)
    if value[_KIND] == "wrapper":
        parts = value["parts"]
        return rebuild_wrapper(
            Wrapper(
                module=value["class"][0],
                qualname=value["class"][1],
                context=value["context"],
                described=repr(value["context"]),
                parts={key: revive(parts[key], model, name=name, param=param) for key in parts},
            ),
            size=tuple(value["shape"]),
            stride=tuple(value["stride"]),
            name=name,
        )
    if value[_KIND] == "tensor":
        tensor: torch.Tensor = value["tensor"]
        placed = tensor.to(_device(value["device"], model, param))
        if "class" not in value:
            return placed
        cls = find_class(*value["class"], name=name)
        if cls is nn.Parameter:
            return nn.Parameter(placed, requires_grad=bool(value.get("requires_grad")))
        return placed.as_subclass(cls)
    return _revive_distributed(value, model, name)


def _revive_distributed(value: Mapping[str, Any], model: nn.Module, name: str) -> DTensor:
    neighbor = _on_same_mesh(value, model, name)
    local = revive(value["tensor"], model, name=name, param=neighbor)
    return DTensor.from_local(
        local if local.is_meta else local.to(neighbor.device),
        neighbor.device_mesh,
        [_placement(item) for item in value["placements"]],
        run_check=False,
        shape=torch.Size(value["shape"]),
        stride=tuple(value["stride"]),
    )


def _describe(placement: Placement, where: str) -> list[Any]:
    if type(placement) is Shard:
        return ["shard", placement.dim]
    if type(placement) is Replicate:
        return ["replicate"]
    if type(placement) is Partial:
        return ["partial", placement.reduce_op]
    raise TypeError(f"{where} is placed as {placement}, which cannot be saved exactly")


def _placement(item: list[Any]) -> Placement:
    if item[0] == "shard":
        return Shard(item[1])
    return Replicate() if item[0] == "replicate" else Partial(item[1])


def _device(kind: str, model: nn.Module, param: torch.Tensor | None) -> torch.device:
    """Returns the device for a tensor that was on a device of this kind."""
    if kind != "cpu" and param is not None:
        return param.device
    alike = (other.device for other in model.parameters() if other.device.type == kind)
    return next(alike, torch.device(kind))


def require_known_meshes(value: Any, model: nn.Module, where: str) -> None:
    """Refuses distributed tensors on meshes that a later process could not find through the model.

    Raises:
        TypeError: No parameter of the model is on a mesh with the same axis names and sizes.
    """
    for tensor in tensors_in(value):
        if isinstance(tensor, DTensor):
            found = _require_mesh(_mesh_of(tensor), model, where)
            if found.device_mesh != tensor.device_mesh:
                raise TypeError(
                    f"{where} holds a distributed tensor on a device mesh with the same axis names "
                    "and sizes as another mesh, which the model's parameters are on; name its axes"
                )


def require_revivable(encoded: Any, model: nn.Module, where: str) -> None:
    """As :func:`require_known_meshes`, for a result of :func:`encode`.

    Raises:
        TypeError: See :func:`require_known_meshes`.
    """
    if isinstance(encoded, list | tuple):
        for item in encoded:
            require_revivable(item, model, where)
    elif isinstance(encoded, Mapping) and encoded.get(_KIND) == "dtensor":
        _require_mesh((encoded["axes"], encoded["sizes"]), model, where)
    elif isinstance(encoded, Mapping):
        for item in encoded.values():
            require_revivable(item, model, where)


def _require_mesh(mesh: tuple[list[str], list[int]], model: nn.Module, where: str) -> DTensor:
    found = _on_mesh(mesh, model)
    if found is None:
        raise TypeError(
            f"{where} holds a distributed tensor on a device mesh {mesh} that no parameter of the "
            "model is on; give its to_local() or full_tensor()"
        )
    return found


def _mesh_of(value: DTensor) -> tuple[list[str], list[int]]:
    return list(value.device_mesh.mesh_dim_names or ()), list(value.device_mesh.shape)


def _on_mesh(mesh: tuple[list[str], list[int]], model: nn.Module) -> DTensor | None:
    params = (param for param in model.parameters() if isinstance(param, DTensor))
    return next((param for param in params if _mesh_of(param) == mesh), None)


def _on_same_mesh(value: Mapping[str, Any], model: nn.Module, name: str) -> DTensor:
    found = _on_mesh((value["axes"], value["sizes"]), model)
    if found is not None:
        return found
    raise StateMismatchError(
        f"{name} was placed on a device mesh {value['axes']} of {value['sizes']}, and no parameter "
        "of the model is on such a mesh"
    )
