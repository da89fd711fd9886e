"""Rank functions for tests of values that differ by rank under one name.

Each case is a small model and optimizer. All cases of a job are saved and loaded in one launch of
the ranks, because starting them takes longer than all cases together.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from kempnerforge.checkpoint import AsyncCheckpointer, CheckpointError, CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.bits import difference, held_by, picture

Built = tuple[nn.Module, Any]


class Remembering(nn.Module):
    """Has extra state of any kind."""

    def __init__(self, state: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Buffered(nn.Module):
    """Buffers of several types."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("spread", torch.zeros(2, 3, dtype=torch.bfloat16).t())


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, **options)


def _stepped(model: nn.Module, optimizer: Any, number: float, ranks: range = range(8)) -> None:
    """Give moments to all parameters on some of the ranks."""
    for param in model.parameters():
        param.grad = torch.full_like(param, number) if dist.get_rank() in ranks else None
    optimizer.step()
    model.zero_grad()


def _rank_local_parameters(value: float) -> Built:
    model: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with torch.no_grad():
        for param in model.parameters():
            param.fill_(value)
        model[1].weight.fill_(7.0)
    return model, sgd(model)


def _moments(value: float) -> Built:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    _stepped(model, optimizer, value)
    return model, optimizer


def _moments_on_one_rank(value: float) -> Built:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    _stepped(model, optimizer, value, ranks=range(1, 2))
    return model, optimizer


def _sharded_moments_on_one_rank(value: float) -> Built:
    torch.manual_seed(3)
    model = nn.Linear(4, 4)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    _stepped(model, optimizer, value, ranks=range(1, 2))
    return model, optimizer


def _local_norms(value: float) -> Built:
    """A number and a tensor of no dimension beside sharded moments."""
    torch.manual_seed(3)
    model = nn.Linear(4, 4)
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    _stepped(model, optimizer, 1.0)
    for state in optimizer.state.values():
        state["norm"], state["seen"] = torch.tensor(value), int(value)
    return model, optimizer


def _none_on_one_rank(value: float) -> Built:
    """One name that is a tensor on one rank and None on the other."""
    model = nn.Linear(2, 2)
    optimizer = sgd(model)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    for param in model.parameters():
        filled = dist.get_rank() == 1
        optimizer.state[param]["momentum_buffer"] = torch.full((2,), value) if filled else None
    return model, optimizer


def _extra_tensor(value: float) -> Built:
    model = Remembering(torch.full((1 + dist.get_rank(),), value))
    return model, sgd(model)


def _extra_dict(value: float) -> Built:
    model = Remembering({"amax": torch.tensor([value]), "on": (int(value), {}), 3: [value]})
    return model, sgd(model)


def _extra_of_two_kinds(value: float) -> Built:
    """Extra state that is a tensor on one rank and a dict on the other."""
    model = Remembering(torch.tensor([value]) if dist.get_rank() else {"now": value})
    return model, sgd(model)


def _buffers(value: float) -> Built:
    model: Any = Buffered()
    model.seen.fill_(int(value))
    model.spread.fill_(value)
    return model, sgd(model)


def _options(value: float) -> Built:
    model = nn.Linear(2, 2)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(value), betas=(0.5, 0.25))
    optimizer.param_groups[0]["weight_decay"] = value
    return model, optimizer


def _groups_of_another_number(value: float) -> Built:
    """Rank 0 has two groups; all parameters of rank 1 are in the first."""
    model = nn.Linear(2, 2)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    groups = [[model.weight], [model.bias]] if dist.get_rank() == 0 else [[*model.parameters()]]
    options = [
        {"params": group, "weight_decay": value + place} for place, group in enumerate(groups)
    ]
    return model, torch.optim.AdamW(options, lr=value)


def _sub_meshes(value: float) -> Built:
    """Distributed tensors of one name on a mesh of each rank alone."""
    mesh = DeviceMesh("cpu", [dist.get_rank()], mesh_dim_names=("own",), _init_backend=False)
    model = nn.Module()
    local = torch.full((2, 3), value)
    model.weight = nn.Parameter(DTensor.from_local(local, mesh, [Shard(0)], run_check=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    moment = DTensor.from_local(local + 1, mesh, [Shard(0)], run_check=False)
    optimizer.state[model.weight]["momentum_buffer"] = moment
    return model, optimizer


CASES: dict[str, Callable[[float], Built]] = {
    "parameters": _rank_local_parameters,
    "moments": _moments,
    "moments_on_one_rank": _moments_on_one_rank,
    "sharded_moments_on_one_rank": _sharded_moments_on_one_rank,
    "local_norms": _local_norms,
    "none_on_one_rank": _none_on_one_rank,
    "extra_tensor": _extra_tensor,
    "extra_dict": _extra_dict,
    "extra_of_two_kinds": _extra_of_two_kinds,
    "buffers": _buffers,
    "options": _options,
    "groups_of_another_number": _groups_of_another_number,
    "sub_meshes": _sub_meshes,
}


def manager(directory: Path, built: Built, mode: str = "disabled") -> CheckpointManager:
    config = CheckpointConfig(dir=str(directory), async_mode=mode, commit_timeout_s=60.0)  # type: ignore[arg-type]
    return CheckpointManager(config, *built)


def _all_of(built: Built) -> dict[str, Any]:
    model, _ = built
    return {**picture(*built), "extra": getattr(model, "state", None)}


def come_back(rank: int, directory: Path, mode: str) -> dict[str, str]:
    """What is not as it was, by case: saved twice, with a load and other values in between."""
    found = {}
    for name, make in CASES.items():
        saving = make(1.0 + rank)
        held = manager(directory / mode / name, saving, mode)
        words = []
        for step, number in ((1, 1.0 + rank), (2, 3.0 + rank)):
            if step == 2:
                saving = make(number)
                held = manager(directory / mode / name, saving, mode)
                held.load()
                _overwrite(saving, make(number))
            expected = _all_of(saving)
            held.save(step)
            _overwrite(saving, make(50.0))
            held.wait()
            fresh = make(9.0)
            again = manager(directory / mode / name, fresh)
            if again.load()[0] != step:
                words.append("another step")
            words.append(difference(expected, _all_of(fresh)))
        found[name] = "; ".join(filter(None, words))
    return found


def _overwrite(built: Built, other: Built) -> None:
    """Give a model and its optimizer the values of others, in place where there are tensors."""
    now, then = held_by(*built), held_by(*other)
    with torch.no_grad():
        for kind in ("parameters", "buffers"):
            for name, value in now[kind].items():
                value.copy_(then[kind][name])
        for key, state in built[1].state.items():
            _replace(state, _state_like(built, other, key))
    for mine, theirs in zip(built[1].param_groups, other[1].param_groups, strict=True):
        mine.update({key: theirs[key] for key in theirs if key != "params"})
    if isinstance(built[0], Remembering):
        built[0].state = other[0].state


def _state_like(built: Built, other: Built, param: Any) -> dict[str, Any]:
    pairs = zip(built[0].parameters(), other[0].parameters(), strict=True)
    found: dict[str, Any] = next(other[1].state[two] for one, two in pairs if one is param)
    return found


def _replace(state: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(state[key], torch.Tensor) and isinstance(value, torch.Tensor):
            state[key].copy_(value)
        else:
            state[key] = value


def load_elsewhere(rank: int, directory: Path) -> dict[str, tuple[str, bool]]:
    """By case: what another layout of ranks is told, and whether anything changed."""
    found = {}
    for name, make in CASES.items():
        built = make(9.0)
        before = _all_of(built)
        error = ""
        try:
            manager(directory / name, built).load()
        except CheckpointError as caught:
            error = f"{type(caught).__name__}: {caught}"
        found[name] = (error, bool(difference(before, _all_of(built))))
    return found


def exclude_elsewhere(rank: int, directory: Path, keys: dict[str, list[str]]) -> dict[str, int]:
    """The step that another layout of ranks gets without what is bound to single ranks."""
    return {
        name: manager(directory / name, CASES[name](9.0)).load(exclude_keys=excluded)[0]
        for name, excluded in keys.items()
    }


def checkpointer_alone(rank: int, directory: Path) -> list[str]:
    """What an AsyncCheckpointer warns of where one value differs by rank and one does not."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("kempnerforge").addHandler(handler)
    state = {"mine": torch.full((2,), float(rank)), "common": torch.ones(2)}
    AsyncCheckpointer().save(state, str(directory / "plain"))
    return said
