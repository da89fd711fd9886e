"""Captures and restores the state of an optimizer.

An optimizer's ``state_dict()`` defines its state. For most it contains only ``state`` (by
parameter) and ``param_groups``; these are read directly: by name, sharded like the parameter, and
restorable in any layout. Other optimizers have one of these forms:

- *indexed*: ``state_dict()`` has torch's form, but its ``state`` is not ``.state``: an optimizer
  that wraps another one (Lookahead), or a ``state`` that is rebuilt on each access. The result of
  ``state_dict()`` is saved. It is restored through ``load_state_dict``, and then once more exactly,
  because ``load_state_dict`` casts moments to the dtype of their parameter.
- *partitioned*: torch's ``ZeroRedundancyOptimizer``, whose ``state_dict()`` is collective. Each
  rank saves its part, the ``.state`` of the wrapped optimizer.
- *whole*: any other ``state_dict()`` (lists of optimizers). Each rank saves its own and restores it
  unchanged.

Keys of ``.state`` that are not parameters are saved if they are strings or numbers. State that was
not saved is never cleared.
"""

import copy
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.state.checked import Comparison
from kempnerforge.checkpoint.state.rank_local import encode, keeps_its_keys
from kempnerforge.checkpoint.state.tensor_kinds import is_dense, tensors_in

__all__ = [
    "Form",
    "LiveState",
    "capture",
    "form_of",
    "give",
    "give_extra",
    "give_whole",
    "parameters_of",
    "require_parameters",
    "require_same_form",
]

logger = logging.getLogger(__name__)

_STANDARD = ("state", "param_groups")
_NAMES = (str, int, float, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """The state of an optimizer, live."""

    shared: dict[str, dict[str, Any]]
    """By parameter name: state that can be saved by name, for any layout."""
    own: dict[str, Any]
    """Rank-local state, encoded: ``state`` by parameter name, ``keys`` of ``.state`` that are not
    parameters, ``extra`` entries of ``state_dict()``, or ``whole``; empty parts are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Where an optimizer keeps its state."""

    holder: Any
    """The object whose ``.state`` is read and set; None if only ``state_dict()`` has the state."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """The result of ``state_dict()``; empty if it adds nothing to the holder's state."""
    indexed: bool = False
    """Whether ``said`` has torch's form, without a holder."""

    @property
    def extra(self) -> dict[str, Any]:
        """Entries besides the standard ones."""
        known = self.holder is not None or self.indexed
        return {key: self.said[key] for key in self.said if known and key not in _STANDARD}


def form_of(optimizer: Any) -> Form:
    """Finds where an optimizer keeps its state; changes nothing.

    Raises:
        TypeError: Its ``state_dict()`` raises.
    """
    if _is_partitioned(optimizer):
        return Form(holder=optimizer.optim)
    if _says_no_more(optimizer):
        return Form(holder=optimizer)
    said = _said_by(optimizer)
    if not _has_torch_form(optimizer, said):
        return Form(holder=None, said=said)
    state = getattr(optimizer, "state", None)
    if (
        state is not None
        and state is optimizer.state
        and _is_same(state, _by_parameter(optimizer, said))
    ):
        return Form(holder=optimizer, said=said)
    return Form(holder=None, said=said, indexed=True)


def _said_by(optimizer: Any) -> Any:
    try:
        return optimizer.state_dict()
    except Exception as error:  # the program's own code can raise anything
        raise TypeError(
            f"state_dict() of the optimizer, a {type(optimizer).__qualname__}, raises "
            f"{type(error).__name__}: {error}; give the manager an optimizer whose state_dict() "
            "works, such as the wrapped one"
        ) from error


def require_same_form(
    optimizer: Any, form: Form, own: Mapping[str, Any], *, has_moments: bool
) -> None:
    """Refuses an optimizer that cannot take what was saved; changes nothing.

    Args:
        optimizer: The current optimizer.
        form: Its form, from :func:`form_of`.
        own: The saved :attr:`LiveState.own`.
        has_moments: Whether any state was saved by parameter.

    Raises:
        StateMismatchError: One has its state by parameter, and the other as a whole.
    """
    by_parameter = form.holder is not None or form.indexed
    more = own.keys() & {"state", "keys", "extra"}
    if ("whole" in own) if by_parameter else (has_moments or more):
        ways = "as a whole", "by parameter"
        raise StateMismatchError(
            f"the checkpoint has the state of the optimizer {ways[not by_parameter]}, and "
            f"{type(optimizer).__qualname__} takes it {ways[by_parameter]}; build the optimizer as "
            "it was, or pass exclude_keys=['optimizer'] to start with fresh optimizer state"
        )


def require_parameters(optimizer: Any, names: Mapping[int, str]) -> None:
    """Refuses an optimizer of another model.

    Raises:
        StateMismatchError: It holds a parameter that the model does not have.
    """
    unknown = [param for param in parameters_of(optimizer) if id(param) not in names]
    if unknown:
        raise StateMismatchError(
            f"the optimizer holds {len(unknown)} parameters that are not the model's, the first of "
            f"shape {tuple(unknown[0].shape)}; build it from the parameters of the (sharded) model"
        )


def parameters_of(optimizer: Any) -> list[torch.Tensor]:
    """Returns the parameters of all groups, in the order of ``state_dict()``'s indices."""
    groups = getattr(optimizer, "param_groups", ())
    return [param for group in groups for param in group["params"]]


def capture(optimizer: Any, names: Mapping[int, str]) -> LiveState:
    """Captures the state of the optimizer; changes nothing.

    Args:
        optimizer: Has ``state_dict`` and ``param_groups``.
        names: Parameter name by ``id``.

    Raises:
        TypeError: It holds a value that could not be restored exactly.
    """
    form = form_of(optimizer)
    if form.holder is None and not form.indexed:
        return LiveState(shared={}, own={"whole": encode(form.said, "optimizer.state_dict()")})
    state: Mapping[Any, Any]
    state = form.holder.state if form.holder is not None else _by_parameter(optimizer, form.said)
    shared, own = {}, {}
    for param in parameters_of(optimizer):
        if entries := state.get(param):
            name = names[id(param)]
            shared[name], mine = _divided(param, entries, name)
            if mine:
                own[name] = mine
    parts = {
        "state": own,
        "keys": _other_keys(state, parameters_of(optimizer)),
        "extra": {
            key: encode(value, f"optimizer.state_dict()[{key!r}]")
            for key, value in form.extra.items()
        },
    }
    return LiveState(shared=shared, own={key: value for key, value in parts.items() if value})


def give(
    optimizer: Any,
    form: Form,
    *,
    state: Mapping[Any, Any],
    extra: Mapping[str, Any],
    comparison: Comparison,
) -> None:
    """Restores what :func:`capture` took; state that ``state`` does not name is left as it is.

    Args:
        optimizer: The current optimizer.
        form: Its form, from :func:`form_of`.
        state: State by parameter (empty for a parameter without state), and by other keys.
        extra: Entries of ``state_dict()`` besides the standard ones.
        comparison: Compares the optimizer's state afterwards with the state it was given.

    Raises:
        StateMismatchError: They differ.
    """
    if form.holder is not None:
        _set(form.holder.state, state)
        if form.said and not _is_in_state_dict(form.holder.state, optimizer):
            # Both were empty, so it could not be seen that the state is kept elsewhere.
            for key in state:
                form.holder.state.pop(key, None)
            _give_indexed(optimizer, form, state, extra, comparison)
        elif extra or (form.holder is optimizer and _listens(optimizer)):
            give_extra(optimizer, extra)
            _set(form.holder.state, state)
    elif form.indexed:
        _give_indexed(optimizer, form, state, extra, comparison)


def give_whole(optimizer: Any, said: Any, comparison: Comparison) -> None:
    """Restores an optimizer whose state is saved as a whole.

    Raises:
        StateMismatchError: Its ``state_dict()`` differs afterwards from what it was given.
    """
    optimizer.load_state_dict(copy.copy(said))
    _write_through(said, optimizer.state_dict())
    comparison.compare("optimizer.state_dict()", said, optimizer.state_dict())
    comparison.require_none(f"load_state_dict of {type(optimizer).__qualname__}")


def give_extra(optimizer: Any, extra: Mapping[str, Any]) -> None:
    """Restores the optimizer's extra entries through its own ``load_state_dict``.

    The call includes the optimizer's current state and options. It casts moments to the dtype of
    their parameters, so the exact moments have to be set afterwards. Options stay the same objects,
    because others may hold them too.
    """
    options = [
        {key: group[key] for key in group if key != "params"} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict({**optimizer.state_dict(), **extra})
    for group, before in zip(optimizer.param_groups, options, strict=True):
        group.update(before)


def _set(held: Any, state: Mapping[Any, Any]) -> None:
    for key, values in state.items():
        if values:
            held[key] = values
        else:
            held.pop(key, None)


def _give_indexed(
    optimizer: Any,
    form: Form,
    state: Mapping[Any, Any],
    extra: Mapping[str, Any],
    comparison: Comparison,
) -> None:
    indices = [index for group in form.said["param_groups"] for index in group["params"]]
    params = parameters_of(optimizer)
    index_of = {id(param): index for param, index in zip(params, indices, strict=True)}
    by_index = dict(form.said["state"])
    _set(by_index, {index_of.get(id(key), key): value for key, value in state.items()})
    optimizer.load_state_dict({**form.said, **extra, "state": by_index})
    _write_through(by_index, optimizer.state_dict()["state"])
    comparison.compare("optimizer.state", by_index, optimizer.state_dict()["state"])
    comparison.require_none(f"load_state_dict of {type(optimizer).__qualname__}")


def _write_through(saved: Any, now: Any) -> None:
    """Sets exactly the values that ``load_state_dict`` has cast to the dtype of a parameter.

    Usually, ``state_dict()`` returns the optimizer's own dict for each parameter. If it returns a
    copy, this has no effect, and the comparison detects that.
    """
    if isinstance(saved, Mapping) and isinstance(now, dict):
        for key in saved.keys() & now.keys():
            one, other = saved[key], now[key]
            if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
                if one.dtype != other.dtype or type(one) is not type(other):
                    now[key] = one
            else:
                _write_through(one, other)
    elif isinstance(saved, list | tuple) and isinstance(now, list | tuple):
        for one, other in zip(saved, now, strict=False):
            _write_through(one, other)


def _is_partitioned(optimizer: Any) -> bool:
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    return module is not None and isinstance(optimizer, module.ZeroRedundancyOptimizer)


def _says_no_more(optimizer: Any) -> bool:
    """Whether ``state_dict()`` only repeats ``.state``; saves building it, which takes long."""
    return (
        getattr(type(optimizer), "state_dict", None) is Optimizer.state_dict
        and "state" in vars(optimizer)
        and not isinstance(getattr(type(optimizer), "state", None), property)
        and "state_dict" not in vars(optimizer)
        and not optimizer._optimizer_state_dict_pre_hooks
        and not optimizer._optimizer_state_dict_post_hooks
    )


def _listens(optimizer: Any) -> bool:
    """Whether the program's own code takes part in ``load_state_dict``."""
    where = getattr(getattr(type(optimizer), "load_state_dict", None), "__module__", None)
    return (
        not str(where).startswith("torch.")
        or "load_state_dict" in vars(optimizer)
        or bool(getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", None))
        or bool(getattr(optimizer, "_optimizer_load_state_dict_post_hooks", None))
    )


def _has_torch_form(optimizer: Any, said: object) -> bool:
    if not isinstance(said, Mapping) or not isinstance(said.get("state"), Mapping):
        return False
    mine, groups = getattr(optimizer, "param_groups", None), said.get("param_groups")
    return (
        isinstance(mine, list)
        and isinstance(groups, list)
        and [len(group["params"]) for group in mine]
        == [len(group.get("params", ())) for group in groups if isinstance(group, Mapping)]
        and all(isinstance(value, Mapping) for value in said["state"].values())
    )


def _by_parameter(optimizer: Any, said: Mapping[str, Any]) -> dict[Any, Any]:
    """Returns the ``state`` of a state dict in torch's form, keyed by parameter."""
    indices = [index for group in said["param_groups"] for index in group["params"]]
    params = dict(zip(indices, parameters_of(optimizer), strict=True))
    return {params.get(key, key): value for key, value in said["state"].items()}


def _is_same(held: Mapping[Any, Any], said: Mapping[Any, Any]) -> bool:
    """Whether two states hold the same objects."""
    mine = {key: value for key, value in held.items() if value}
    theirs = {key: value for key, value in said.items() if value}
    return mine.keys() == theirs.keys() and all(mine[key] is theirs[key] for key in mine)


def _is_in_state_dict(state: Mapping[Any, Any], optimizer: Any) -> bool:
    """Whether ``state_dict()`` contains what is in ``state``."""
    said = optimizer.state_dict()
    return _has_torch_form(optimizer, said) and _is_same(state, _by_parameter(optimizer, said))


def _other_keys(state: Mapping[Any, Any], params: Iterable[torch.Tensor]) -> dict[Any, Any]:
    found = {}
    known = frozenset(map(id, params))
    for key, value in state.items():
        if id(key) in known:
            continue
        if isinstance(key, torch.Tensor):
            if value:
                logger.warning(
                    "the optimizer holds state for a tensor of shape %s that is in none of its "
                    "parameter groups; this state is not saved",
                    tuple(key.shape),
                )
        elif isinstance(key, _NAMES):
            found[key] = encode(value, f"optimizer.state[{key!r}]")
        else:
            raise TypeError(
                f"optimizer.state has a key of type {type(key).__name__}, which no later process "
                "can look up; key it by a parameter, a name or a number"
            )
    return found


def _divided(
    param: torch.Tensor, state: Mapping[Any, Any], name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    shared, own = {}, {}
    for key, value in state.items():
        if type(key) is str and _is_shared(param, value):
            shared[key] = value
        else:
            own[key] = encode(value, f"optimizer.state.{name}.{key}")
    return shared, own


def _is_shared(param: torch.Tensor, value: Any) -> bool:
    """Whether ``value`` in the state of ``param`` can be saved by name for any layout."""
    if isinstance(value, DTensor):
        return isinstance(param, DTensor) and _placed_alike(param, value) and is_dense(value)
    if type(value) is torch.Tensor:
        if not value.dim():
            return is_dense(value)
        alone = not isinstance(param, DTensor)
        return alone and is_dense(value) and _keeps_its_strides(param, value)
    if isinstance(value, torch.Tensor) or not keeps_its_keys(value):
        return False
    inner = list(_inner_tensors(value))
    if isinstance(param, DTensor):
        return not inner
    return all(type(tensor) is torch.Tensor and is_dense(tensor) for tensor in inner)


def _inner_tensors(value: Any) -> Iterator[torch.Tensor]:
    return tensors_in(value) if isinstance(value, Mapping | list | tuple) else iter(())


def _placed_alike(one: DTensor, other: DTensor) -> bool:
    mine, theirs = one._spec, other._spec
    return mine is theirs or (
        mine.placements == theirs.placements
        and mine.mesh == theirs.mesh
        and one.shape == other.shape
    )


def _keeps_its_strides(param: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether memory newly allocated for a moment would have the strides of ``value``."""
    if value.shape == param.shape:
        if value.is_contiguous() and param.is_contiguous():
            return True
        return value.stride() == torch.empty_like(param, device="meta").stride()
    return value.is_contiguous()
