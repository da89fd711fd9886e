"""Finds a target for every saved value that a rank needs, and refuses values that do not fit.

Changes nothing: the targets are filled when the checkpoint is read, and applied after that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.archives.shard_metadata import flat_paths
from kempnerforge.checkpoint.errors import RedistributionError, StateMismatchError
from kempnerforge.checkpoint.state import optimizer_state
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.fitting import (
    require_fitting,
    require_same_layout,
    require_same_shape,
)
from kempnerforge.checkpoint.state.model_state import (
    CLASS_KEY,
    MODEL,
    LiveModel,
    is_extra_state,
    is_wrapped,
)
from kempnerforge.checkpoint.state.rank_values import Seen
from kempnerforge.checkpoint.state.restoring import PATH, PLACE, RestoreTargets
from kempnerforge.checkpoint.state.tensor_kinds import is_dense, local_of, take_apart

__all__ = ["plan_restore"]


def plan_restore(
    live: LiveModel,
    optimizer: Any,
    seen: Sequence[Seen],
    *,
    own: int,
    exclude: Exclusion,
) -> RestoreTargets:
    """Finds a target for every saved value that this rank needs; changes nothing.

    Args:
        live: The model to restore, plain or sharded in any way.
        optimizer: Its optimizer.
        seen: One view per shard directory; more than one with pipeline stages.
        own: Position of the directory to prefer for names that several stages have.
        exclude: Keys to leave alone.

    Raises:
        StateMismatchError: The checkpoint lacks a value of the model, or has one that does not fit.
        RedistributionError: A value exists only for single ranks of another layout.
    """
    targets = RestoreTargets(live_model=live, optimizer=optimizer, owners=_owners(seen, own))
    targets.reads = {directory: {} for directory in range(len(seen))}
    _Planner(targets, seen, own, exclude).plan()
    return targets


def _owners(seen: Sequence[Seen], own: int) -> dict[str, int]:
    """Maps each model entry to the directory to read it from: the rank's own, else the first."""
    owners: dict[str, int] = {}
    for directory in _in_order(seen, own):
        for key in seen[directory].metadata.state_dict_metadata:
            if key.startswith(MODEL):
                owners.setdefault(key.removeprefix(MODEL), directory)
    return owners


def _in_order(seen: Sequence[Seen], own: int) -> list[int]:
    return sorted(range(len(seen)), key=lambda directory: (directory != own, directory))


class _Planner:
    """Fills :class:`RestoreTargets` in one walk over the model and one over the checkpoint."""

    def __init__(
        self, targets: RestoreTargets, seen: Sequence[Seen], own: int, exclude: Exclusion
    ) -> None:
        self.targets, self.seen, self.exclude = targets, seen, exclude
        self.order = _in_order(seen, own)
        self.absent = {name for part in seen for name in part.absent}

    def plan(self) -> None:
        missing: list[str] = []
        for name, value in self.targets.live_model.state.items():
            key = f"{MODEL}{self.targets.live_model.plain_name(name)}"
            if not self.exclude.covers(key) and not self._plan_entry(name, key, value):
                missing.append(key)
        self._require_present(missing)
        self._offer_the_rest()
        self._plan_optimizer()

    def _offer_the_rest(self) -> None:
        """Plans to read values without an entry in the model, which a module's hook may create."""
        known = self.targets.live_model.entries.keys()
        for name, directory in self.targets.owners.items():
            key = f"{MODEL}{name}"
            entry = self.seen[directory].metadata.state_dict_metadata[key]
            rest = name not in known and key not in self.targets.reads[directory]
            if rest and isinstance(entry, TensorStorageMetadata) and self._may_make(name):
                self.targets.reads[directory][key] = _fresh_plain(entry)
                self.targets.offered[name] = (directory, key)

    def _may_make(self, name: str) -> bool:
        owner = self._owner(name)
        return (
            owner is not None
            and not self.exclude.covers(f"{MODEL}{name}")
            and name.rpartition(".")[2] in owner._buffers
            and self._may_change_shape(name)
        )

    def _require_present(self, missing: Sequence[str]) -> None:
        if not missing:
            return
        bound = [key for key in missing if key in self.absent]
        if bound:
            raise RedistributionError(_bound_words(bound))
        shown = ", ".join(sorted(missing)[:5])
        raise StateMismatchError(
            f"the checkpoint lacks {len(missing)} values of the model: {shown}; was it written by "
            "another model?"
        )

    def _entry(self, key: str) -> tuple[int, Any] | None:
        directory = self.targets.owners.get(key.removeprefix(MODEL))
        if directory is None:
            return None
        return directory, self.seen[directory].metadata.state_dict_metadata[key]

    def _plan_entry(self, name: str, key: str, value: Any) -> bool:
        """Plans to read one entry of the model; returns whether the checkpoint has it."""
        if self._is_saved_as_wrapper(key, value):
            if is_extra_state(name) or not self.targets.live_model.holds(value):
                self.targets.refilled.add(name)
            return self._plan_parts_of(key, local_of(value))
        found = self._entry(key)
        if found is None:
            return is_extra_state(name) and self._plan_taken_apart(name, value)
        directory, entry = found
        if self._goes_in_place(name, value) and not self._is_resized(name, value, entry):
            self._read_in_place(key, value, directory, entry)
        else:
            self._read_for_module(name, key, value, directory, entry)
        return True

    def _is_saved_as_wrapper(self, key: str, value: Any) -> bool:
        then = self._entry(f"{key}.{CLASS_KEY}") is not None
        now = is_wrapped(value)
        if then == now or not (then or self._entry(key)):
            return then
        raise StateMismatchError(
            f"{key} {'was saved as' if then else 'is'} a tensor subclass, and "
            f"{'the model has' if then else 'the checkpoint has'} a plain one; build the model as "
            "it was, or exclude the key from loading"
        )

    def _may_change_shape(self, name: str) -> bool:
        """Whether the module of an entry loads it with code of its own."""
        owner = self._owner(name)
        if owner is None:
            return False
        # The overrides in torch.nn (BatchNorm has one) only add what an old checkpoint lacks.
        return not str(type(owner)._load_from_state_dict.__module__).startswith("torch.nn.")

    def _owner(self, name: str) -> nn.Module | None:
        try:
            return self.targets.live_model.module.get_submodule(name.rpartition(".")[0])
        except AttributeError:
            return None

    def _is_resized(self, name: str, value: torch.Tensor, entry: Any) -> bool:
        saved = isinstance(entry, TensorStorageMetadata) and entry.size != value.shape
        return saved and self._may_change_shape(name)

    def _goes_in_place(self, name: str, value: Any) -> bool:
        return (
            isinstance(value, torch.Tensor)
            and not is_extra_state(name)
            and (value.is_meta or (is_dense(value) and self.targets.live_model.holds(value)))
        )

    def _read_in_place(self, key: str, value: torch.Tensor, directory: int, entry: Any) -> None:
        if key in self.seen[directory].own:
            value = local_of(value)
        require_fitting(key, entry, value)
        self._note_conversion(key, entry, value)
        self.targets.reads[directory][key] = value
        self.targets.live.add(key)

    def _read_for_module(self, name: str, key: str, value: Any, directory: int, entry: Any) -> None:
        spread = len(getattr(entry, "chunks", ())) > 1
        if is_extra_state(name) and spread and not isinstance(value, torch.Tensor):
            raise StateMismatchError(
                f"{key} was saved as a distributed tensor, and the model has none there that would "
                "define its placement; build the model with one, or exclude the key from loading"
            )
        fresh = _fresh_like(value, entry, own=key in self.seen[directory].own)
        fixed = not (is_extra_state(name) or self._may_change_shape(name))
        if isinstance(value, torch.Tensor) and fixed:
            require_same_layout(key, entry, value)
            self.targets.copied.add(name)
        if fresh is not None and isinstance(value, torch.Tensor) and fixed:
            require_same_shape(key, fresh.shape, value)
        self._read_fresh((directory, key), fresh)
        self.targets.module_values[name] = (directory, key)

    def _note_conversion(self, key: str, entry: TensorStorageMetadata, value: torch.Tensor) -> None:
        saved = entry.properties.dtype
        if saved != value.dtype:
            self.targets.converted.append(f"{key} ({saved} to {value.dtype})")

    def _read_fresh(self, place: PLACE, fresh: Any) -> None:
        directory, key = place
        if isinstance(fresh, DTensor) and key in self.seen[directory].own:
            self.targets.wholes[place] = fresh
            fresh = local_of(fresh)
        self.targets.reads[directory][key] = fresh

    def _plan_parts_of(self, key: str, value: torch.Tensor) -> bool:
        """Plans to fill the tensors of a wrapper in place; returns whether that is possible."""
        class_key = f"{key}.{CLASS_KEY}"
        found = self._entry(class_key)
        assert found is not None
        self.targets.reads[found[0]][class_key] = None
        self.targets.classes[found[0], class_key] = value
        for part, tensor in take_apart(value).parts.items():
            if self._is_saved_as_wrapper(f"{key}.{part}", tensor):
                if not self._plan_parts_of(f"{key}.{part}", tensor):
                    return False
                continue
            inner = self._entry(f"{key}.{part}")
            if inner is None:
                return False
            self._read_in_place(f"{key}.{part}", tensor, *inner)
        return True

    def _plan_taken_apart(self, name: str, current: Any) -> bool:
        """Plans to read extra state that an older version flattened; returns whether there is any.

        Such a checkpoint has no trace of an empty dict: if the module has one now, it is kept.
        """
        prefix = (MODEL.rstrip("."), self.targets.live_model.plain_name(name))
        for directory, part in enumerate(self.seen):
            entries = part.metadata.state_dict_metadata
            found = {
                path[2:]: (directory, key)
                for key, path in flat_paths(part.metadata).items()
                if path[:2] == prefix
            }
            for _, key in found.values():
                self.targets.reads[directory][key] = _fresh_plain(entries[key])
            if found:
                self.targets.module_parts[name] = found
                return True
        return bool(current == {})

    def _plan_optimizer(self) -> None:
        targets, names = self.targets, self.targets.live_model.names
        targets.restores_moments = not self.exclude.covers("optimizer.state")
        targets.groups.restores = not self.exclude.covers("optimizer.param_groups")
        if targets.restores_moments or targets.groups.restores:
            optimizer_state.require_parameters(targets.optimizer, names)
        held = {
            names.get(id(param), ""): (param, group)
            for group in getattr(targets.optimizer, "param_groups", ())
            for param in group["params"]
        }
        owners = {**self._owners_of_moments(), **targets.owners}
        known = set(names.values())
        for directory, part in enumerate(self.seen):
            for key, path in flat_paths(part.metadata).items():
                if path[0] != "optimizer" or len(path) < 4 or self.exclude.covers(key):
                    continue
                entry, name = part.metadata.state_dict_metadata[key], str(path[2])
                if path[1] == "param_groups":
                    targets.groups.add((directory, int(path[2])), path[3:], (directory, key))
                    targets.reads[directory][key] = _fresh_plain(entry)
                elif path[1] == "state" and owners.get(name) == directory:
                    if name in held:
                        self._plan_moment((directory, key), path[3:], entry, *held[name])
                    elif name in known:
                        targets.orphans.add(key)
        self._require_moments(held)

    def _owners_of_moments(self) -> dict[str, int]:
        """Maps each parameter to its directory, even if ``state_dict()`` has no entry for it."""
        owners: dict[str, int] = {}
        for directory in self.order:
            for path in flat_paths(self.seen[directory].metadata).values():
                if path[:2] == ("optimizer", "state"):
                    owners.setdefault(str(path[2]), directory)
        return owners

    def _plan_moment(
        self,
        place: PLACE,
        path: PATH,
        entry: Any,
        param: torch.Tensor,
        group: Mapping[str, Any],
    ) -> None:
        own = place[1] in self.seen[place[0]].own
        self.targets.moments.setdefault(self.targets.live_model.names[id(param)], {})[path] = place
        self._read_fresh(place, _fresh_moment(entry, path, param, group, own=own))

    def _require_moments(self, held: Mapping[str, Any]) -> None:
        prefixes = tuple(f"optimizer.state.{name}." for name in held)
        bound = sorted(
            key for key in self.absent if key.startswith(prefixes) and not self.exclude.covers(key)
        )
        if bound:
            raise RedistributionError(_bound_words(bound))


def _bound_words(keys: Sequence[str]) -> str:
    return (
        f"{len(keys)} values of the checkpoint differ by rank under one name and belong to single "
        f"ranks of the layout that saved them, the first: {min(keys)}; resume with the same layout "
        "of ranks, or exclude them from loading"
    )


def _fresh_plain(entry: Any) -> torch.Tensor | None:
    if isinstance(entry, TensorStorageMetadata):
        return torch.empty(entry.size, dtype=entry.properties.dtype, device="cpu")
    return None


def _fresh_like(current: Any, entry: Any, *, own: bool) -> torch.Tensor | None:
    """Returns an empty value of the saved size, placed like the current one if that is a tensor."""
    fresh = _fresh_plain(entry)
    if fresh is None or not isinstance(current, torch.Tensor) or current.is_meta:
        return fresh
    if not is_dense(current):
        return fresh
    shape = local_of(current).shape if own else current.shape
    return _empty_like(current, fresh.dtype) if fresh.shape == shape else fresh.to(current.device)


def _fresh_moment(
    entry: Any, path: PATH, param: torch.Tensor, group: Mapping[str, Any], *, own: bool
) -> torch.Tensor | None:
    """Returns an empty value, placed where the optimizer would have placed it.

    A moment of the parameter's shape is placed and sharded like the parameter. ``step`` is on the
    CPU unless the optimizer is capturable or fused, as in torch's own optimizers.
    """
    if not isinstance(entry, TensorStorageMetadata):
        return None
    dtype = entry.properties.dtype
    if path[-1] == "step":
        on_device = bool(group.get("capturable") or group.get("fused"))
        return torch.empty(entry.size, dtype=dtype, device=param.device if on_device else "cpu")
    if entry.size == (local_of(param).shape if own else param.shape) and not is_wrapped(param):
        return _empty_like(param, dtype)
    return torch.empty(entry.size, dtype=dtype, device=param.device)


def _empty_like(param: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(param, DTensor) and param.dtype == dtype:
            # The same as empty_like, whose dispatch costs more than reading most moments.
            local = torch.empty_like(param.to_local())
            made: Any = DTensor  # its constructor has no types
            found: torch.Tensor = made(local, param._spec, requires_grad=False)
            return found
        return torch.empty_like(param.detach(), dtype=dtype, requires_grad=False)
