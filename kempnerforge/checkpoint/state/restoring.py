"""Where each value of a checkpoint goes, decided before anything changes; and putting it there.

A value goes one of three ways:

- *in place*: what is in the model's own memory is filled where it is;
- *the module's own way*: an entry that a hook or a method of the module made goes back through
  ``load_state_dict``, together with all the others, since a hook may want them as well;
- *the optimizer's own way*: see :mod:`optimizer_state`.
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
"""Shard directory by position, and flat key."""


@dataclass(kw_only=True)
class RestoreTargets:
    """Where each value of a checkpoint goes; nothing is changed until :meth:`apply`.

    Reading fills fresh values; those for tensors of the model are copied once all were read.
    """

    live_model: LiveModel
    optimizer: Any
    owners: Mapping[str, int] = field(default_factory=dict)
    """Model entry to the shard directory that it is read from."""
    reads: dict[int, dict[str, Any]] = field(default_factory=dict)
    """For each shard directory, by position: flat key to the value to fill."""
    live: set[str] = field(default_factory=set)
    """Flat keys of the model's own tensors, which stay as they are until all is read."""
    module_values: dict[str, PLACE] = field(default_factory=dict)
    """Model entries that only the module itself can set: state dict key to place."""
    offered: dict[str, PLACE] = field(default_factory=dict)
    """Model entries that the module may make, of which it has none yet."""
    converted: list[str] = field(default_factory=list)
    """Entries of the model that are of another dtype than the saved ones, in words."""
    module_parts: dict[str, dict[PATH, PLACE]] = field(default_factory=dict)
    """The same for a dict or list that an older version took apart: path within to place."""
    copied: set[str] = field(default_factory=set)
    """State dict keys of those that torch copies into the tensor of now, as it is."""
    refilled: set[str] = field(default_factory=set)
    """State dict keys of wrappers that are made for whoever asks: filled, and handed back."""
    moments: dict[str, dict[PATH, PLACE]] = field(default_factory=dict)
    """Parameter name to the optimizer state it gets."""
    wholes: dict[PLACE, torch.Tensor] = field(default_factory=dict)
    """Distributed tensors of which this rank reads its own local part only."""
    classes: dict[PLACE, torch.Tensor] = field(default_factory=dict)
    """Where the class of a wrapper is described, and the wrapper of now."""
    groups: SavedGroups = field(default_factory=SavedGroups)
    orphans: set[str] = field(default_factory=set)
    """Flat keys of moments of parameters that the optimizer does not hold."""
    restores_moments: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)
    """Optimizer state of this rank alone; see :class:`optimizer_state.LiveState`. As captured, and
    live once all is decided."""
    form: optimizer_state.Form | None = None
    """Of the optimizer, where it gets anything but options."""

    def decide(self) -> None:
        """Settle what can be settled only once the values are read; changes nothing.

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
        """Hand over what was read to the model and the optimizer, but for its groups.

        Raises:
            StateMismatchError: A ``load_state_dict`` of the program's does not take back what was
                saved.
        """
        places = {**self.module_values, **self.offered}
        values = {name: self._value(place) for name, place in places.items()}
        values.update({name: self.live_model.state[name] for name in self.refilled})
        parts = {name: self._nested(entries) for name, entries in self.module_parts.items()}
        versions = {name: _version(value) for name, value in values.items()}
        self._set_in_module({**values, **parts})
        # A hook may compute in the memory that it is given, and that is no longer what was saved.
        as_read = {
            name: value for name, value in values.items() if _version(value) == versions[name]
        }
        if as_read:
            self._require_said_back(as_read, Comparison(check))
        if self.form is not None:
            self._apply_optimizer(self.form, Comparison(check))

    def apply_groups(self) -> None:
        """Set the options of the parameter groups; after a scheduler, which may write them too."""
        self.groups.apply(self.optimizer)

    def apply_own(self, values: Mapping[str, torch.Tensor]) -> None:
        """Hand over entries of the model that an older version kept in this rank's own file."""
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
        """Saved values that neither this model nor its optimizer has a place for."""
        mine = {f"{MODEL}{name}" for name in self.live_model.entries}
        mine.update(key for part in self.module_parts.values() for _, key in part.values())
        mine.update(key for read in self.reads.values() for key in read)
        others = sorted({*self.orphans, *(f"{MODEL}{name}" for name in self.owners)} - mine)
        return tuple(
            key for key in others if not exclude.covers(key) and not key.endswith(f".{CLASS_KEY}")
        )

    def _set_in_module(self, values: Mapping[str, Any]) -> None:
        """Through ``load_state_dict``, where only the module can set a value or its hooks ask."""
        module = self.live_model.module
        if not values and not _listens(module):
            return
        state = self.live_model.state
        # What was filled in place is given as itself, which copies nothing.
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
            # Of another type than the model's it was converted, as the program wants it.
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
        """This rank's own state, on the current devices and meshes."""
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
    """Changes whenever a tensor is written to."""
    return local_of(value)._version if isinstance(value, torch.Tensor) else 0


def _is_of_one_type(one: Any, other: Any) -> bool:
    both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return not both or one.dtype == other.dtype


def _listens(module: nn.Module) -> bool:
    """Whether a module of the program's own has a say in ``load_state_dict``."""
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
    """Whether a function is none of torch's, whose hooks change no values."""
    return not str(getattr(function, "__module__", "")).startswith("torch.")
