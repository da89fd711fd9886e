"""Takes and restores the state of an optimizer.

An optimizer says what it holds by ``state_dict()``. Most say no more than ``state`` (by parameter)
and ``param_groups``, and theirs are read directly: by name, sharded where the parameter is, exact
in any layout. The others have one of these forms:

- *indexed*: ``state_dict()`` has torch's form, and its ``state`` is not ``.state``: an optimizer
  around another one (Lookahead), a ``state`` that is made anew when it is asked for. What it says
  counts; it goes back through ``load_state_dict``, and then exactly, because that casts moments to
  the type of their parameter.
- *partitioned*: torch's ``ZeroRedundancyOptimizer``, whose ``state_dict()`` is a collective. Each
  rank's part is the ``.state`` of the optimizer within.
- *whole*: any other ``state_dict()`` (lists of optimizers). It is each rank's own, and goes back as
  it was.

Keys of ``.state`` that are no parameters are kept if they are names or numbers. What was not saved
is never cleared.
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
    """By parameter name: what can be saved by name for any layout."""
    own: dict[str, Any]
    """This rank's own, encoded: ``state`` by parameter name, ``keys`` of ``.state`` that are no
    parameters, ``extra`` entries of ``state_dict()``, or ``whole``; what is empty is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Where the state of an optimizer is."""

    holder: Any
    """Whose ``.state`` is read and set; None where only ``state_dict()`` tells."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """The result of ``state_dict()``; empty if it says no more than the holder."""
    indexed: bool = False
    """Whether ``said`` has torch's form, without a holder."""

    @property
    def extra(self) -> dict[str, Any]:
        """Entries beside the standard ones."""
        known = self.holder is not None or self.indexed
        return {key: self.said[key] for key in self.said if known and key not in _STANDARD}


def form_of(optimizer: Any) -> Form:
    """Where the state of an optimizer is; changes nothing.

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
    except Exception as error:  # of the program's own code, which may raise anything
        raise TypeError(
            f"state_dict() of the optimizer, a {type(optimizer).__qualname__}, raises "
            f"{type(error).__name__}: {error}; give the manager an optimizer that can say what it "
            "holds, such as the one within"
        ) from error


def require_same_form(
    optimizer: Any, form: Form, own: Mapping[str, Any], *, has_moments: bool
) -> None:
    """Refuse an optimizer that cannot take what was saved; changes nothing.

    Args:
        optimizer: Of now.
        form: Of it, as :func:`form_of` found it.
        own: As :attr:`LiveState.own` was.
        has_moments: Whether any state was saved by parameter.

    Raises:
        StateMismatchError: One tells its state by parameter, and the other as a whole.
    """
    by_parameter = form.holder is not None or form.indexed
    more = own.keys() & {"state", "keys", "extra"}
    if ("whole" in own) if by_parameter else (has_moments or more):
        ways = "as a whole", "by parameter"
        raise StateMismatchError(
            f"the checkpoint has the state of the optimizer {ways[not by_parameter]}, and "
            f"{type(optimizer).__qualname__} takes it {ways[by_parameter]}; build the optimizer as "
            "it was, or pass exclude_keys=['optimizer'] to start it afresh"
        )


def require_parameters(optimizer: Any, names: Mapping[int, str]) -> None:
    """Refuse an optimizer of another model.

    Raises:
        StateMismatchError: It holds a parameter that has no name.
    """
    unknown = [param for param in parameters_of(optimizer) if id(param) not in names]
    if unknown:
        raise StateMismatchError(
            f"the optimizer holds {len(unknown)} parameters that are not the model's, the first of "
            f"shape {tuple(unknown[0].shape)}; build it from the parameters of the (sharded) model"
        )


def parameters_of(optimizer: Any) -> list[torch.Tensor]:
    """The parameters of all groups, in the order of ``state_dict()``'s indices."""
    groups = getattr(optimizer, "param_groups", ())
    return [param for group in groups for param in group["params"]]


def capture(optimizer: Any, names: Mapping[int, str]) -> LiveState:
    """The state of the optimizer; changes nothing.

    Args:
        optimizer: Has ``state_dict`` and ``param_groups``.
        names: Parameter name by ``id``.

    Raises:
        TypeError: It holds what would not come back as it is.
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
    """Restore what :func:`capture` took; what ``state`` does not name stays.

    Args:
        optimizer: Of now.
        form: Of now, as :func:`form_of` found it.
        state: What belongs to each parameter, empty for one that has no state, and to other keys.
        extra: Entries of ``state_dict()`` beside the standard ones.
        comparison: Of what the optimizer says afterwards with what it was given.

    Raises:
        StateMismatchError: The optimizer does not say afterwards what it was given.
    """
    if form.holder is not None:
        _set(form.holder.state, state)
        if form.said and not _tells_of(form.holder.state, optimizer):
            # Both were empty, so nothing told that the state is kept elsewhere.
            for key in state:
                form.holder.state.pop(key, None)
            _give_indexed(optimizer, form, state, extra, comparison)
        elif extra or (form.holder is optimizer and _listens(optimizer)):
            give_extra(optimizer, extra)
            _set(form.holder.state, state)
    elif form.indexed:
        _give_indexed(optimizer, form, state, extra, comparison)


def give_whole(optimizer: Any, said: Any, comparison: Comparison) -> None:
    """Restore an optimizer that tells only the whole of its state.

    Raises:
        StateMismatchError: Its ``state_dict()`` does not say afterwards what it was given.
    """
    optimizer.load_state_dict(copy.copy(said))
    _write_through(said, optimizer.state_dict())
    comparison.compare("optimizer.state_dict()", said, optimizer.state_dict())
    comparison.require_none(f"load_state_dict of {type(optimizer).__qualname__}")


def give_extra(optimizer: Any, extra: Mapping[str, Any]) -> None:
    """Restore entries of the optimizer's own, through its own ``load_state_dict``.

    It gets what the optimizer holds beside them. That casts moments to the type of their
    parameters, so moments are to be set afterwards, exactly. Options stay the objects that they
    are, because others may hold them too.
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
    """Set again, exactly, what ``load_state_dict`` has cast to the type of a parameter.

    What a ``state_dict()`` shows of the state of a parameter is the optimizer's own dict, as a
    rule; where it is a copy, nothing is achieved here, and the comparison says so.
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
    """Whether ``state_dict()`` is torch's own of ``.state``, which takes long to build."""
    return (
        getattr(type(optimizer), "state_dict", None) is Optimizer.state_dict
        and "state" in vars(optimizer)
        and not isinstance(getattr(type(optimizer), "state", None), property)
        and "state_dict" not in vars(optimizer)
        and not optimizer._optimizer_state_dict_pre_hooks
        and not optimizer._optimizer_state_dict_post_hooks
    )


def _listens(optimizer: Any) -> bool:
    """Whether the program has a say in ``load_state_dict``."""
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
    """The ``state`` of a state dict in torch's form, by parameter where an index is one's."""
    indices = [index for group in said["param_groups"] for index in group["params"]]
    params = dict(zip(indices, parameters_of(optimizer), strict=True))
    return {params.get(key, key): value for key, value in said["state"].items()}


def _is_same(held: Mapping[Any, Any], said: Mapping[Any, Any]) -> bool:
    """Whether two states are the same objects."""
    mine = {key: value for key, value in held.items() if value}
    theirs = {key: value for key, value in said.items() if value}
    return mine.keys() == theirs.keys() and all(mine[key] is theirs[key] for key in mine)


def _tells_of(state: Mapping[Any, Any], optimizer: Any) -> bool:
    """Whether ``state_dict()`` says what is in ``state``."""
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
                    "the optimizer holds state of a tensor of shape %s that is in none of its "
                    "parameter groups; it is not saved",
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
    """Whether memory that is made anew for a moment is laid out as it is."""
    if value.shape == param.shape:
        if value.is_contiguous() and param.is_contiguous():
            return True
        return value.stride() == torch.empty_like(param, device="meta").stride()
    return value.is_contiguous()
