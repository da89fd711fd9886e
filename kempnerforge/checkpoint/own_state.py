"""Optimizer state that belongs to one rank and that no other layout of ranks can use.

Moments that have the shape and the placement of their parameter are shards of one global tensor;
they are saved as such and load into any layout. Some optimizers keep other things:

- statistics computed from the local shard of a parameter (factored second moments, norms): plain
  tensors that differ by rank under one name, or distributed tensors placed in another way;
- entries of ``state_dict()`` beside ``state`` and ``param_groups`` (an inner optimizer, counters);
- containers that shards cannot hold: DCP turns every key of a dict into a string and forgets dicts
  that are empty.

Both are kept as they are in the rank's own file and come back bit for bit to the same layout. For
another layout they are refused, except for entries without tensors, which rank 0's value stands
for. Single numbers in the state of a sharded parameter are saved both ways: the rank's own value
for the same layout, the first rank's for any other.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement
from torch.optim import Optimizer

from kempnerforge.checkpoint.errors import RedistributionError, StateMismatchError

__all__ = ["OWN_KEY", "divide", "keeps_its_keys", "revive", "shared_remainder"]

OWN_KEY = "optimizer"
"""Key of this state in the rank's file."""
_KIND = "kempnerforge.kind"
_STANDARD = ("state", "param_groups")
_PLAIN_KEYS = (str, int, float, bool, type(None))
_NO_NUMBERS = (DTensor, str, type(None))


def _is_shared(param: torch.Tensor, value: Any) -> bool:
    """Whether ``value`` in the state of ``param`` can be saved as one global value."""
    if isinstance(value, DTensor):
        return not isinstance(param, DTensor) or _placed_alike(param, value)
    if isinstance(value, torch.Tensor):
        return not isinstance(param, DTensor) or not value.dim()
    if not keeps_its_keys(value):
        return False
    return not isinstance(param, DTensor) or next(_tensors(value), None) is None


def _placed_alike(one: DTensor, other: DTensor) -> bool:
    mine, theirs = one._spec, other._spec
    return mine is theirs or (
        mine.placements == theirs.placements
        and mine.mesh == theirs.mesh
        and one.shape == other.shape
    )


def keeps_its_keys(value: Any) -> bool:
    """Whether a value comes back from shards with the keys that it has."""
    if isinstance(value, Mapping):
        return bool(value) and all(
            isinstance(key, str) and keeps_its_keys(item) for key, item in value.items()
        )
    return not isinstance(value, list | tuple) or all(map(keeps_its_keys, value))


def divide(
    optimizer: Optimizer, names: Mapping[int, str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The optimizer's state: what can be saved as global values, and this rank's own.

    Args:
        optimizer: Not changed.
        names: Parameter name by ``id``.

    Returns:
        The live values by parameter name, and plain values for the rank's own file; either may be
        empty.

    Raises:
        TypeError: A key or a placement that cannot be restored.
    """
    shared, own = {}, {}
    for group in optimizer.param_groups:
        for param in group["params"]:
            if state := optimizer.state.get(param):
                name = names[id(param)]
                shared[name], mine = _divided(param, state)
                if mine:
                    own[name] = mine
    extra = {
        key: _encode(value, f"optimizer.state_dict()[{key!r}]")
        for key, value in (optimizer.state_dict() if _has_extra(optimizer) else {}).items()
        if key not in _STANDARD
    }
    return shared, {key: value for key, value in (("state", own), ("extra", extra)) if value}


def _has_extra(optimizer: Optimizer) -> bool:
    """Whether ``state_dict()`` may have more than torch's own has, which takes long to build."""
    standard = type(optimizer).state_dict is Optimizer.state_dict
    return not standard or bool(optimizer._optimizer_state_dict_post_hooks)


def _divided(
    param: torch.Tensor, state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    shared, own = {}, {}
    for key, value in state.items():
        global_value = _is_shared(param, value)
        if global_value:
            shared[key] = value
        if not global_value or (key != "step" and _is_local_number(param, value)):
            own[key] = _encode(value, f"optimizer state {key!r}")
    return shared, own


def _is_local_number(param: torch.Tensor, value: Any) -> bool:
    return isinstance(param, DTensor) and not isinstance(value, _NO_NUMBERS)


def shared_remainder(saved: Mapping[str, Any], *, path: str) -> dict[str, Any]:
    """The part of one rank's own state that stands for all ranks of any layout.

    Raises:
        RedistributionError: There is more than that.
    """
    bound = [
        f"{name}.{key}"
        for name, state in saved.get("state", {}).items()
        for key, value in state.items()
        if not keeps_its_keys(value) or any(tensor.dim() for tensor in _tensors(value))
    ]
    extra = saved.get("extra", {})
    bound += [key for key, value in extra.items() if next(_tensors(value), None) is not None]
    if bound:
        raise RedistributionError(
            f"{path}: {len(bound)} entries of the optimizer's state belong to single ranks of the "
            f"layout that saved them, the first: {bound[0]}; resume with the same layout of ranks, "
            "or pass exclude_keys=['optimizer'] to start the optimizer afresh",
            path=path,
        )
    return {"extra": extra} if extra else {}


def revive(value: Any, model: nn.Module, *, param: torch.Tensor | None = None) -> Any:
    """A captured value, on the kind of device and the mesh that it was on.

    Which device of its kind, the parameters say: the current one differs by thread.

    Args:
        value: What :func:`divide` captured.
        model: The model of now.
        param: The parameter whose state it is; None for an entry beside the state.

    Raises:
        StateMismatchError: The model has no mesh like the one it was on.
    """
    if isinstance(value, list | tuple):
        return type(value)(revive(item, model, param=param) for item in value)
    if not isinstance(value, Mapping):
        return value
    if _KIND not in value:
        return {key: revive(item, model, param=param) for key, item in value.items()}
    tensor: torch.Tensor = value["tensor"]
    if value[_KIND] == "tensor":
        return tensor.to(_device(value["device"], model, param))
    neighbor = _on_same_mesh(value, model)
    return DTensor.from_local(
        tensor.to(neighbor.device),
        neighbor.device_mesh,
        [_placement(item) for item in value["placements"]],
        run_check=False,
        shape=torch.Size(value["shape"]),
        stride=tuple(value["stride"]),
    )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, DTensor):
        mesh = value.device_mesh
        return {
            _KIND: "dtensor",
            "tensor": value.to_local().detach(),
            "device": mesh.device_type,
            "axes": list(mesh.mesh_dim_names or ()),
            "sizes": list(mesh.shape),
            "placements": [_describe(placement, where) for placement in value.placements],
            "shape": list(value.shape),
            "stride": list(value.stride()),
        }
    if isinstance(value, torch.Tensor):
        return {_KIND: "tensor", "tensor": value.detach(), "device": value.device.type}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, _PLAIN_KEYS):
                raise TypeError(
                    f"{where} has a key of type {type(key).__name__}, which no later process can "
                    "look up; use the names or the indices of parameters as keys"
                )
        return {key: _encode(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        encoded = [_encode(item, where) for item in value]
        return tuple(encoded) if isinstance(value, tuple) else encoded
    return value


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
    """Where a tensor goes that was on a device of this kind; what was on the host stays there."""
    if kind != "cpu" and param is not None:
        return param.device
    alike = (other.device for other in model.parameters() if other.device.type == kind)
    return next(alike, torch.device(kind))


def _on_same_mesh(value: Mapping[str, Any], model: nn.Module) -> DTensor:
    for param in model.parameters():
        if isinstance(param, DTensor):
            mesh = param.device_mesh
            names = list(mesh.mesh_dim_names or ())
            if names == value["axes"] and list(mesh.shape) == value["sizes"]:
                return param
    raise StateMismatchError(
        f"optimizer state was placed on a device mesh {value['axes']} of {value['sizes']}, and no "
        "parameter of the model is on such a mesh"
    )
