"""Targets for the values of a checkpoint, chosen before anything changes, and their application.

A value is restored in one of three ways:

- *in place*: a tensor in the model's own memory is filled;
- *through the module*: an entry that a hook or a method of the module created goes back through
  ``load_state_dict``, together with all other entries, because a hook may need them;
- *through the optimizer*: see :mod:`optimizer_state`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kempnerforge.checkpoint.state import optimizer_state, rank_local
from kempnerforge.checkpoint.state.checked import Comparison, RestoreCheck
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.fitting import require_same_class, require_same_pattern
from kempnerforge.checkpoint.state.groups import SavedGroups, nested
from kempnerforge.checkpoint.state.model_state import (
    CLASS_KEY,
    MODEL,
    LiveModel,
    is_extra_state,
    takes_argument,
)
from kempnerforge.checkpoint.state.tensor_kinds import local_of

__all__ = ["PATH", "PLACE", "RestoreTargets"]

PATH = tuple[str | int, ...]
PLACE = tuple[int, str]
"""Position of a shard directory, and flat key in it."""


@dataclass(kw_only=True)
class RestoreTargets:
    """The target of each value of a checkpoint; nothing is changed until :meth:`apply`.

    Values are read into fresh memory, and copied into tensors of the model once all are read.
    """

    live_model: LiveModel
    optimizer: Any
    owners: Mapping[str, int] = field(default_factory=dict)
    """Maps a model entry to the shard directory that it is read from."""
    reads: dict[int, dict[str, Any]] = field(default_factory=dict)
    """For each shard directory, by position: maps a flat key to the value to fill."""
    live: set[str] = field(default_factory=set)
    """Flat keys of the model's own tensors, which stay unchanged until everything is read."""
    module_values: dict[str, PLACE] = field(default_factory=dict)
    """Model entries that only the module itself can set: maps state dict key to place."""
    offered: dict[str, PLACE] = field(default_factory=dict)
    """Saved entries that the model lacks now, but that one of its modules may create."""
    converted: list[str] = field(default_factory=list)
    """Descriptions of model entries whose dtype differs from the saved one."""
    module_parts: dict[str, dict[PATH, PLACE]] = field(default_factory=dict)
    """Likewise, a dict or list that an older version flattened: maps path within it to place."""
    copied: set[str] = field(default_factory=set)
    """State dict keys of module values that torch copies unchanged into existing tensors."""
    refilled: set[str] = field(default_factory=set)
    """State dict keys of wrappers that ``state_dict()`` creates anew: filled and passed back."""
    moments: dict[str, dict[PATH, PLACE]] = field(default_factory=dict)
    """Maps a parameter's name to the optimizer state it gets."""
    wholes: dict[PLACE, torch.Tensor] = field(default_factory=dict)
    """Distributed tensors of which this rank reads only its local part."""
    classes: dict[PLACE, torch.Tensor] = field(default_factory=dict)
    """Places of the descriptions of wrappers' classes, with the model's current wrappers."""
    groups: SavedGroups = field(default_factory=SavedGroups)
    orphans: set[str] = field(default_factory=set)
    """Flat keys of moments of parameters that the optimizer does not hold."""
    restores_moments: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)
    """Rank-local optimizer state; see :class:`optimizer_state.LiveState`. Encoded at first, and
    live after :meth:`decide`."""
    form: optimizer_state.Form | None = None
    """The form of the optimizer, if it gets anything but options."""

    def decide(self) -> None:
        """Makes the decisions that need the values that were read; changes nothing.

        Raises:
            StateMismatchError: The parameter groups, the classes of tensors, sparse tensors or the
                optimizer do not fit.
        """
        for name in self.copied:
            value, now = self._value(self.module_values[name]), self.live_model.state[name]
            if _is_sparse(value) or _is_sparse(now):
                key = f"{MODEL}{self.live_model.plain_name(name)}"
                require_same_pattern(key, local_of(value), local_of(now))
        for place, value in self.classes.items():
            require_same_class(place[1].removesuffix(f".{CLASS_KEY}"), self._value(place), value)
        self.groups.decide(self.optimizer, self.live_model.names, self.owners, self._value)
        if self.restores_moments or "extra" in self.own:
            self.form = optimizer_state.form_of(self.optimizer)
            optimizer_state.require_same_form(
                self.optimizer, self.form, self.own, has_moments=bool(self.moments)
            )
        self.own = self._revived_own()

    def apply(self, check: RestoreCheck) -> None:
        """Applies what was read to the model and the optimizer, except parameter groups.

        Raises:
            StateMismatchError: A ``load_state_dict`` of the program does not restore what was
                saved.
        """
        places = {**self.module_values, **self.offered}
        values = {name: self._value(place) for name, place in places.items()}
        values.update({name: self.live_model.state[name] for name in self.refilled})
        parts = {name: self._nested(entries) for name, entries in self.module_parts.items()}
        versions = {name: _version(value) for name, value in values.items()}
        self._set_in_module({**values, **parts})
        # A hook can compute in the memory that it is given, which then differs from what was saved.
        as_read = {
            name: value for name, value in values.items() if _version(value) == versions[name]
        }
        if as_read:
            self._require_said_back(as_read, Comparison(check))
        if self.form is not None:
            self._apply_optimizer(self.form, Comparison(check))

    def apply_groups(self) -> None:
        """Sets the options of the parameter groups; after a scheduler, which may set them too."""
        self.groups.apply(self.optimizer)

    def apply_own(self, values: Mapping[str, torch.Tensor]) -> None:
        """Applies entries of the model that an older version kept in this rank's own file."""
        if not values:
            return
        extra = {}
        with torch.no_grad():
            for name, current in self.live_model.state.items():
                value = values.get(self.live_model.plain_name(name))
                if value is not None and is_extra_state(name):
                    on_device = isinstance(current, torch.Tensor) and not current.is_meta
                    extra[name] = value.to(current.device) if on_device else value
                elif value is not None:
                    current.copy_(value)
        self._set_in_module(extra)

    def unexpected(self, exclude: Exclusion) -> tuple[str, ...]:
        """Returns the saved values for which neither model nor optimizer has a place."""
        mine = {f"{MODEL}{name}" for name in self.live_model.entries}
        mine.update(key for part in self.module_parts.values() for _, key in part.values())
        mine.update(key for read in self.reads.values() for key in read)
        others = sorted({*self.orphans, *(f"{MODEL}{name}" for name in self.owners)} - mine)
        return tuple(
            key for key in others if not exclude.covers(key) and not key.endswith(f".{CLASS_KEY}")
        )

    def _set_in_module(self, values: Mapping[str, Any]) -> None:
        """Calls ``load_state_dict`` if only the module can set a value, or if it has hooks."""
        module = self.live_model.module
        if not values and not _listens(module):
            return
        state = self.live_model.state
        # Tensors filled in place are passed as themselves, so nothing is copied.
        whole = OrderedDict(state)
        whole.update(values)
        whole._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
        with torch.no_grad():
            if takes_argument(module.load_state_dict, "strict"):
                module.load_state_dict(whole, strict=False)
            else:
                module.load_state_dict(whole)

    def _require_said_back(self, values: Mapping[str, Any], comparison: Comparison) -> None:
        now = LiveModel(self.live_model.module).state
        before = self.live_model.state
        for name, value in values.items():
            # A value of another dtype was converted to the model's, as the program wants.
            if not is_extra_state(name) and _is_of_one_type(value, before.get(name, now.get(name))):
                comparison.compare(f"{MODEL}{name}", value, now.get(name))
        comparison.require_none(f"load_state_dict of {type(self.live_model.module).__name__}")

    def _value(self, place: PLACE) -> Any:
        if place in self.wholes:
            return self.wholes[place]
        directory, key = place
        return self.reads[directory][key]

    def _nested(self, entries: Mapping[PATH, PLACE]) -> Any:
        return nested({path: self._value(place) for path, place in entries.items()})

    def _apply_optimizer(self, form: optimizer_state.Form, comparison: Comparison) -> None:
        if "whole" in self.own:
            optimizer_state.give_whole(self.optimizer, self.own["whole"], comparison)
            return
        extra = self.own.get("extra", {})
        if not self.restores_moments:
            optimizer_state.give_extra(self.optimizer, extra)
            return
        restored: dict[Any, Any] = {}
        known = self.groups.parameters | self.moments.keys()
        for param in optimizer_state.parameters_of(self.optimizer):
            name = self.live_model.names[id(param)]
            values = self._nested(self.moments[name]) if name in self.moments else {}
            values.update(self.own.get("state", {}).get(name, {}))
            if values or name in known:
                restored[param] = values
        optimizer_state.give(
            self.optimizer,
            form,
            state={**restored, **self.own.get("keys", {})},
            extra=extra,
            comparison=comparison,
        )

    def _revived_own(self) -> dict[str, Any]:
        """Decodes the rank-local state, onto the current devices and meshes."""
        model, names = self.live_model.module, self.live_model.names
        state = dict(self.own.get("state", {}))
        for param in optimizer_state.parameters_of(self.optimizer):
            if (name := names.get(id(param))) in state:
                where = f"optimizer.state.{name}"
                state[name] = rank_local.revive(state[name], model, name=where, param=param)
        rest = {key: value for key, value in self.own.items() if key != "state"}
        return {"state": state} | {
            key: rank_local.revive(value, model, name=f"optimizer {key}")
            for key, value in rest.items()
        }


def _is_sparse(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and local_of(value).layout is not torch.strided


def _version(value: Any) -> int:
    """Returns a number that changes whenever the tensor is written to."""
    return local_of(value)._version if isinstance(value, torch.Tensor) else 0


def _is_of_one_type(one: Any, other: Any) -> bool:
    both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return not both or one.dtype == other.dtype


def _listens(module: nn.Module) -> bool:
    """Whether the program's own code takes part in the module's ``load_state_dict``."""
    return any(
        _is_own(hook)
        for part in module.modules()
        for hook in (
            *_hooks_of(part),
            type(part)._load_from_state_dict,
            type(part).load_state_dict,
        )
    )


def _hooks_of(module: nn.Module) -> Iterator[Any]:
    for hook in (
        *module._load_state_dict_pre_hooks.values(),
        *module._load_state_dict_post_hooks.values(),
    ):
        yield getattr(hook, "hook", hook)


def _is_own(function: Any) -> bool:
    """Whether a function is not torch's; hooks of torch change no values."""
    return not str(getattr(function, "__module__", "")).startswith("torch.")
