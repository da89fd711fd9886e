"""Options of parameter groups: finds the saved group that each current group continues.

Groups are matched by the parameters they hold, not by position: a module that was frozen when one
of the two optimizers was built is missing from it, and stages have groups of their own. Groups can
be split or joined, as long as all parameters of a group were saved with the same options. A group
without parameters, as on a rank without experts, is matched by position. Labels and names stay
those of the current optimizer.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from kempnerforge.checkpoint.errors import StateMismatchError

__all__ = ["SavedGroups", "nested"]

logger = logging.getLogger(__name__)

_LABELS = frozenset({"params", "param_names", "name", "names", "group_name", "label", "tag"})
_PATH = tuple[str | int, ...]
_PLACE = tuple[int, str]


@dataclass(kw_only=True)
class SavedGroups:
    """The parameter groups of a checkpoint, and the options that each current group gets."""

    places: dict[tuple[int, int], dict[_PATH, _PLACE]] = field(default_factory=dict)
    """Saved groups, by directory and position; each maps a path within it to a place."""
    restores: bool = False
    parameters: frozenset[str] = frozenset()
    """Parameters that the saved optimizer held; known once the groups are read."""
    options: list[dict[str, Any]] = field(default_factory=list)
    """Options of each current group, by position."""

    def add(self, group: tuple[int, int], path: _PATH, place: _PLACE) -> None:
        """Records where an entry of a saved group is."""
        self.places.setdefault(group, {})[path] = place

    def decide(
        self,
        optimizer: Any,
        names: Mapping[int, str],
        owners: Mapping[str, int],
        value_at: Callable[[_PLACE], Any],
    ) -> None:
        """Finds the options of each current group; changes nothing.

        Args:
            optimizer: The current optimizer.
            names: Parameter name by ``id``.
            owners: Shard directory by parameter, for names that are entries of the model.
            value_at: Returns the value read at a place.

        Raises:
            StateMismatchError: A group has parameters of saved groups with different options.
        """
        saved = []
        for directory, position in sorted(self.places):
            group = _group_of(self.places[directory, position], value_at)
            params = group.get("params", ())
            owned = [name for name in params if owners.get(name, directory) == directory]
            saved.append({**group, "params": owned})
        self.parameters = frozenset(name for group in saved for name in group["params"])
        if not self.restores:
            return
        groups = getattr(optimizer, "param_groups", ())
        alike = len(groups) == len(saved)
        for position, group in enumerate(groups):
            mine = {names[id(param)] for param in group["params"]}
            if mine:
                options = _matching(mine, saved)
                _warn_of_changes(group, options, mine, saved)
            else:
                empty = alike and not saved[position]["params"]
                options = _options_of(saved[position]) if empty else {}
            self.options.append(options)

    def apply(self, optimizer: Any) -> None:
        """Sets the options; can be called repeatedly."""
        groups = getattr(optimizer, "param_groups", ())
        for group, options in zip(groups, self.options, strict=False):
            for key, value in options.items():
                if key not in _LABELS or key not in group:
                    group[key] = _placed(group.get(key), value)


def nested(entries: Mapping[_PATH, Any]) -> Any:
    """Rebuilds the containers that were flattened to these paths."""
    root: dict[Any, Any] = {}
    for path, value in entries.items():
        node = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return _lists_from_indices(root)


def _lists_from_indices(node: Any) -> Any:
    """Turns dicts whose keys are all indices back into the lists they were."""
    if type(node) is not dict:
        return node
    values = {key: _lists_from_indices(value) for key, value in node.items()}
    if values and all(isinstance(key, int) for key in values):
        return [values[index] for index in sorted(values)]
    return values


def _group_of(entries: Mapping[_PATH, _PLACE], value_at: Callable[[_PLACE], Any]) -> dict[str, Any]:
    found: dict[str, Any] = nested({path: value_at(place) for path, place in entries.items()})
    return found


def _placed(current: Any, value: Any) -> Any:
    """Returns the saved value, in the existing tensor if there is one: others may hold it too."""
    if isinstance(value, tuple) and isinstance(current, tuple) and len(value) == len(current):
        return tuple(map(_placed, current, value))
    if isinstance(current, torch.Tensor) and isinstance(value, torch.Tensor):
        if current.shape == value.shape and current.dtype == value.dtype:
            with torch.no_grad():
                current.copy_(value)
            return current
        return value.to(current.device)
    return value


def _matching(mine: set[str], saved: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the options of the saved group that held these parameters; empty if none did."""
    options = [_options_of(group) for group in saved if mine & set(group["params"])]
    if not options:
        logger.warning("no saved options for %d optimizer parameters; kept as built", len(mine))
        return {}
    for other in options[1:]:
        differing = _differing(other, options[0])
        if differing:
            raise StateMismatchError(
                f"the parameters of one group ({min(mine)}, ...) were saved in groups with "
                f"different options ({', '.join(differing)}); build the optimizer with the groups "
                "that the checkpoint has, or exclude 'optimizer.param_groups' from loading"
            )
    return options[0]


def _options_of(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _warn_of_changes(
    group: Mapping[str, Any],
    options: Mapping[str, Any],
    mine: set[str],
    saved: Iterable[Mapping[str, Any]],
) -> None:
    """Warns if a saved group was split into groups that were built with different options."""
    whole = [set(held["params"]) for held in saved if mine & set(held["params"])]
    if not options or any(held <= mine for held in whole):
        return
    built = {key: value for key, value in group.items() if key in options}
    for key in _differing(built, {key: options[key] for key in built}):
        logger.warning(
            "parameter group of %s, ... was part of a larger group when it was saved: %s is %s as "
            "saved, not %s as built",
            min(mine),
            key,
            options[key],
            group[key],
        )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    keys = (one.keys() | other.keys()) - _LABELS
    return sorted(
        key for key in keys if key not in one or key not in other or not _same(one[key], other[key])
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        return both and one.shape == other.shape and bool((one.cpu() == other.cpu()).all())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and np.array_equal(one, other)
    return bool(one == other) or bool(one != one and other != other)  # NaN is not itself
