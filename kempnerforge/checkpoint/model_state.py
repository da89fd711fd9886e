"""Model and optimizer state, by the global names of parameters.

The state is assembled here and not with ``get_optimizer_state_dict``: that helper steps the
optimizer to create missing state, which changes training, fails for some optimizers and invents
state for parameters that have none. What is saved is exactly what exists; what is restored is
exactly what was saved.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from kempnerforge.checkpoint import own_state
from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.exclusion import Exclusion
from kempnerforge.checkpoint.fitting import require_fitting, require_rebuildable
from kempnerforge.checkpoint.shards import flat_paths

__all__ = [
    "AssembledState",
    "LiveModel",
    "RestoreTargets",
    "assemble",
    "is_extra_state",
    "mesh_signature",
    "plain_buffers",
    "plan_restore",
]

logger = logging.getLogger(__name__)

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
_MODEL = "model."
_PATH = tuple[str | int, ...]


class LiveModel:
    """A model's own tensors; it is walked through at most once for each kind of question.

    Args:
        model: Neither changed nor copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self.module = _unwrapped(model)

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By the module's own name; a shared one has its first name."""
        return dict(self.module.named_parameters())

    @cached_property
    def names(self) -> dict[int, str]:
        """Global name of each parameter object, by its ``id``."""
        return {id(param): _plain_name(name) for name, param in self.parameters.items()}

    @cached_property
    def state(self) -> dict[str, Any]:
        """What ``state_dict`` holds, by the module's own name; no detached twins of parameters."""
        state: dict[str, Any] = self.module.state_dict(keep_vars=True)
        return state

    @cached_property
    def entries(self) -> dict[str, Any]:
        """What ``state_dict`` holds, by global name."""
        return {_plain_name(name): value for name, value in self.state.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledState:
    """The state to save; tensors are the live ones."""

    shared: dict[str, Any]
    """What all ranks save together, by global names."""
    own: dict[str, Any]
    """Optimizer state of this rank alone, for its own file; see :mod:`own_state`."""


def assemble(live: LiveModel, optimizer: Optimizer) -> AssembledState:
    """The state to save. Changes nothing and draws nothing.

    Raises:
        StateMismatchError: The optimizer holds a parameter that the model does not have.
        TypeError: The optimizer or a module holds what would not come back as it is.
    """
    for name in filter(is_extra_state, live.entries):
        require_rebuildable(f"{_MODEL}{name}", live.entries[name])
    groups = [_named_group(group, live.names) for group in optimizer.param_groups]
    state, own = own_state.divide(optimizer, live.names)
    optimizer_state = {"state": state, "param_groups": groups}
    return AssembledState(shared={"model": live.entries, "optimizer": optimizer_state}, own=own)


def plain_buffers(live: LiveModel) -> dict[str, torch.Tensor]:
    """The model's own saved buffers that are not distributed tensors, by global name.

    Extra state of modules is among them where it is a tensor.
    """
    return {
        name: value
        for name, value in live.entries.items()
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter | DTensor)
    }


def is_extra_state(name: str) -> bool:
    """Whether an entry of a model is what a module's ``get_extra_state`` returned.

    Such a value may be made for the caller and have any size; only ``set_extra_state`` restores it.
    """
    return name.rpartition(".")[2] == _EXTRA_STATE_KEY_SUFFIX


def mesh_signature(parameters: Iterable[torch.Tensor]) -> list[dict[str, list[Any]]]:
    """Names and sizes of the device mesh axes that the parameters are spread over."""
    meshes = {param.device_mesh for param in parameters if isinstance(param, DTensor)}
    found = {(tuple(mesh.mesh_dim_names or ()), tuple(mesh.shape)) for mesh in meshes}
    return [{"axes": list(axes), "sizes": list(sizes)} for axes, sizes in sorted(found)]


def _named_group(group: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    unknown = [param for param in group["params"] if id(param) not in names]
    if unknown:
        raise StateMismatchError(
            f"the optimizer holds {len(unknown)} parameters that are not the model's, the first of "
            f"shape {tuple(unknown[0].shape)}; build it from the parameters of the (sharded) model"
        )
    for key, value in group.items():
        if key != "params" and value != {} and not own_state.keeps_its_keys(value):
            raise TypeError(
                f"entry {key!r} of a parameter group holds a dict that is empty or has keys other "
                "than strings, which would not come back as it is; use names as keys"
            )
    return {**group, "params": [names[id(param)] for param in group["params"]]}


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


@lru_cache(maxsize=1 << 16)
def _plain_name(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


@dataclass(kw_only=True)
class RestoreTargets:
    """Where each value of a checkpoint goes; nothing is changed until :meth:`apply`.

    Reading fills fresh values; those for tensors of the model are copied once all were read.
    """

    live_model: LiveModel
    optimizer: Optimizer
    owners: Mapping[str, int] = field(default_factory=dict)
    """Model entry to the shard directory that it is read from."""
    reads: dict[int, dict[str, Any]] = field(default_factory=dict)
    """For each shard directory, by position: flat key to the value to fill."""
    live: set[str] = field(default_factory=set)
    """Flat keys of the model's own tensors, which stay as they are until all is read."""
    module_values: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Model entries that only the module itself can set, such as extra state: state dict key to
    directory and flat key."""
    module_parts: dict[str, dict[_PATH, tuple[int, str]]] = field(default_factory=dict)
    """The same for a dict or list that was taken apart when it was saved: path within to place."""
    moments: dict[str, dict[_PATH, tuple[int, str]]] = field(default_factory=dict)
    """Parameter name to the optimizer state it gets."""
    groups: dict[tuple[int, int], dict[_PATH, tuple[int, str]]] = field(default_factory=dict)
    """Saved parameter group, by directory and position, to its entries."""
    restores_moments: bool = False
    restores_groups: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)
    """Optimizer state of this rank alone, as captured: ``state`` and ``extra``."""

    def apply(self) -> None:
        """Hand over what was read to the model and the optimizer."""
        values = {name: self._value(place) for name, place in self.module_values.items()}
        parts = {name: self._nested(entries) for name, entries in self.module_parts.items()}
        self._set_in_module({**values, **parts})
        if "extra" in self.own:
            self._apply_extra(self.own["extra"])
        if self.restores_moments:
            self._apply_moments()
        if self.restores_groups:
            self._apply_groups()

    def apply_own(self, values: Mapping[str, torch.Tensor]) -> None:
        """Hand over entries of the model that were this rank's own, by global name."""
        if not values:
            return
        extra = {}
        with torch.no_grad():
            for name, current in self.live_model.state.items():
                value = values.get(_plain_name(name))
                if value is not None and is_extra_state(name):
                    on_device = isinstance(current, torch.Tensor) and not current.is_meta
                    extra[name] = value.to(current.device) if on_device else value
                elif value is not None:
                    current.copy_(value)
        self._set_in_module(extra)

    def unexpected(self, exclude: Exclusion) -> tuple[str, ...]:
        """Saved values of the model that this model does not have."""
        mine = {f"{_MODEL}{name}" for name in self.live_model.entries}
        mine.update(key for part in self.module_parts.values() for _, key in part.values())
        others = sorted({f"{_MODEL}{name}" for name in self.owners} - mine)
        return tuple(key for key in others if not exclude.covers(key))

    def _set_in_module(self, values: dict[str, Any]) -> None:
        if values:
            self.live_model.module.load_state_dict(values, strict=False)

    def _value(self, place: tuple[int, str]) -> Any:
        directory, key = place
        return self.reads[directory][key]

    def _nested(self, entries: Mapping[_PATH, tuple[int, str]]) -> Any:
        root: dict[Any, Any] = {}
        for path, place in entries.items():
            node = root
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = self._value(place)
        return _lists_from_indices(root)

    def _owned_group(self, place: tuple[int, int]) -> dict[str, Any]:
        """A saved group, reduced to the parameters that are read from its directory."""
        group: dict[str, Any] = self._nested(self.groups[place])
        owned = [name for name in group.get("params", ()) if self.owners.get(name) == place[0]]
        return {**group, "params": owned}

    def _apply_extra(self, extra: Mapping[str, Any]) -> None:
        """Entries of the optimizer's own, through its own ``load_state_dict``.

        That casts moments to the type of their parameters, so moments and groups are set
        afterwards, exactly.
        """
        state = self.optimizer.state_dict()
        state.update(
            {key: own_state.revive(value, self.live_model.module) for key, value in extra.items()}
        )
        self.optimizer.load_state_dict(state)

    def _apply_moments(self) -> None:
        names = self.live_model.names
        params = [param for group in self.optimizer.param_groups for param in group["params"]]
        restored = {
            param: self._nested(self.moments[names[id(param)]])
            for param in params
            if names[id(param)] in self.moments
        }
        for param in params:
            own = self.own.get("state", {}).get(names[id(param)])
            if own:
                revived = own_state.revive(own, self.live_model.module, param=param)
                restored.setdefault(param, {}).update(revived)
        self.optimizer.state.clear()
        self.optimizer.state.update(restored)

    def _apply_groups(self) -> None:
        saved = [self._owned_group(place) for place in sorted(self.groups)]
        names = self.live_model.names
        for group in self.optimizer.param_groups:
            mine = {names[id(param)] for param in group["params"]}
            values = _matching_group(mine, saved)
            for key, value in values.items():
                current = group.get(key)
                if isinstance(current, torch.Tensor) and isinstance(value, torch.Tensor):
                    current.copy_(value)
                else:
                    group[key] = value


def _lists_from_indices(node: Any) -> Any:
    """Dicts whose keys are all indices were lists before they were flattened."""
    if not isinstance(node, dict):
        return node
    values = {key: _lists_from_indices(value) for key, value in node.items()}
    if values and all(isinstance(key, int) for key in values):
        return [values[index] for index in sorted(values)]
    return values


def _matching_group(mine: set[str], saved: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Options of the saved group that held these parameters; empty where none did.

    Groups are matched by the parameters they hold, not by position: a module that was frozen when
    one of the two optimizers was built is missing from it, and stages have groups of their own.

    Raises:
        StateMismatchError: The parameters were spread over groups with different options.
    """
    options = [
        {key: value for key, value in group.items() if key != "params"}
        for group in saved
        if mine & set(group.get("params", ()))
    ]
    if not options:
        if mine:
            logger.warning("no saved options for %d optimizer parameters; kept as built", len(mine))
        return {}
    if any(not _same_options(other, options[0]) for other in options[1:]):
        raise StateMismatchError(
            f"the parameters of one group ({sorted(mine)[0]}, ...) were saved in groups with "
            "different options; build the optimizer with the groups that the checkpoint has"
        )
    return options[0]


def _same_options(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key])
        if isinstance(value, torch.Tensor)
        else bool(value == other[key])
        for key, value in one.items()
    )


def plan_restore(
    live: LiveModel,
    optimizer: Optimizer,
    metadata: Sequence[Metadata],
    *,
    own: int,
    exclude: Exclusion,
) -> RestoreTargets:
    """Find a target for every saved value that this rank needs; changes nothing.

    Args:
        live: The model to restore, plain or sharded in any way.
        optimizer: Its optimizer.
        metadata: One a shard directory; more than one for pipeline stages.
        own: Position of the directory to prefer for names that several stages have.
        exclude: Keys to leave alone.

    Raises:
        StateMismatchError: The checkpoint lacks a value of the model, or has one that does not fit.
    """
    targets = RestoreTargets(live_model=live, optimizer=optimizer, owners=_owners(metadata, own))
    targets.reads = {directory: {} for directory in range(len(metadata))}
    _plan_model(targets, metadata, exclude)
    _plan_optimizer(targets, metadata, exclude)
    return targets


def _owners(metadata: Sequence[Metadata], own: int) -> dict[str, int]:
    """Model entry to the directory it is read from: the own one if it has it, else the first."""
    order = sorted(range(len(metadata)), key=lambda directory: (directory != own, directory))
    owners: dict[str, int] = {}
    for directory in order:
        for key in metadata[directory].state_dict_metadata:
            if key.startswith(_MODEL):
                owners.setdefault(key.removeprefix(_MODEL), directory)
    return owners


def _plan_model(targets: RestoreTargets, metadata: Sequence[Metadata], exclude: Exclusion) -> None:
    missing = []
    for name, value in targets.live_model.state.items():
        plain = _plain_name(name)
        key = f"{_MODEL}{plain}"
        if exclude.covers(key):
            continue
        if plain not in targets.owners:
            if not (is_extra_state(name) and _plan_parts(targets, metadata, name, value)):
                missing.append(key)
            continue
        directory = targets.owners[plain]
        entry = metadata[directory].state_dict_metadata[key]
        if isinstance(value, torch.Tensor) and not is_extra_state(name):
            require_fitting(key, entry, value)
            targets.reads[directory][key] = value
            targets.live.add(key)
        else:
            targets.module_values[name] = (directory, key)
            targets.reads[directory][key] = _fresh_like(value, entry)
    if missing:
        shown = ", ".join(sorted(missing)[:5])
        raise StateMismatchError(
            f"the checkpoint lacks {len(missing)} values of the model: {shown}; was it written by "
            "another model?"
        )


def _plan_parts(
    targets: RestoreTargets, metadata: Sequence[Metadata], name: str, current: Any
) -> bool:
    """Plan to read extra state that is a dict or a list; whether the checkpoint has it.

    An empty dict leaves no trace in a checkpoint: where the module has one now, it stays.
    """
    prefix = (_MODEL.rstrip("."), _plain_name(name))
    for directory, part in enumerate(metadata):
        found = {
            path[2:]: (directory, key)
            for key, path in flat_paths(part).items()
            if path[:2] == prefix
        }
        for _, key in found.values():
            targets.reads[directory][key] = _fresh_plain(part.state_dict_metadata[key])
        if found:
            targets.module_parts[name] = found
            return True
    return bool(current == {})


def _plan_optimizer(
    targets: RestoreTargets, metadata: Sequence[Metadata], exclude: Exclusion
) -> None:
    names = targets.live_model.names
    held = {
        names.get(id(param), ""): (param, group)
        for group in targets.optimizer.param_groups
        for param in group["params"]
    }
    targets.restores_moments = not exclude.covers("optimizer.state")
    targets.restores_groups = not exclude.covers("optimizer.param_groups")
    orphans = set()
    for directory, part in enumerate(metadata):
        for key, path in flat_paths(part).items():
            if path[0] != "optimizer" or len(path) < 4 or exclude.covers(key):
                continue
            entry = part.state_dict_metadata[key]
            if path[1] == "param_groups":
                group_id = (directory, int(path[2]))
                targets.groups.setdefault(group_id, {})[path[3:]] = (directory, key)
                targets.reads[directory][key] = _fresh_plain(entry)
            elif path[1] != "state" or targets.owners.get(str(path[2])) != directory:
                continue
            elif path[2] in held:
                param, group = held[str(path[2])]
                targets.moments.setdefault(str(path[2]), {})[path[3:]] = (directory, key)
                targets.reads[directory][key] = _fresh_moment(entry, path[3:], param, group)
            elif path[2] in names.values():
                orphans.add(str(path[2]))
    if orphans:
        logger.warning(
            "saved optimizer state of %d parameters that the optimizer does not hold is not "
            "loaded, the first: %s",
            len(orphans),
            min(orphans),
        )


def _fresh_plain(entry: Any) -> torch.Tensor | None:
    if isinstance(entry, TensorStorageMetadata):
        return torch.empty(entry.size, dtype=entry.properties.dtype, device="cpu")
    return None


def _fresh_like(current: Any, entry: Any) -> torch.Tensor | None:
    """An empty value of the saved size, placed as the current one where that is a tensor."""
    fresh = _fresh_plain(entry)
    if fresh is None or not isinstance(current, torch.Tensor) or current.is_meta:
        return fresh
    if fresh.shape == current.shape:
        return _empty_like(current, fresh.dtype)
    return fresh.to(current.device)


def _fresh_moment(
    entry: Any, path: _PATH, param: torch.Tensor, group: Mapping[str, Any]
) -> torch.Tensor | None:
    """An empty value placed the way that the optimizer would have placed it.

    A moment of the parameter's shape lives where the parameter does, sharded alike. ``step`` lives
    on the host unless the optimizer is capturable or fused, as in torch's own optimizers.
    """
    if not isinstance(entry, TensorStorageMetadata):
        return None
    dtype = entry.properties.dtype
    if path[-1] == "step":
        on_device = bool(group.get("capturable") or group.get("fused"))
        return torch.empty(entry.size, dtype=dtype, device=param.device if on_device else "cpu")
    if tuple(entry.size) == tuple(param.shape):
        return _empty_like(param, dtype)
    return torch.empty(entry.size, dtype=dtype, device=param.device)


def _empty_like(param: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(param, DTensor) and param.dtype == dtype:
            # What empty_like comes to; dispatching a DTensor costs more than reading most of them.
            local = torch.empty_like(param.to_local())
            made: Any = DTensor  # its constructor has no types
            found: torch.Tensor = made(local, param._spec, requires_grad=False)
            return found
        return torch.empty_like(param, dtype=dtype, requires_grad=False)
