"""Rank functions for tests of rank-local values, in ``extra`` and in shards."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard

from kempnerforge.checkpoint import CheckpointError, CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.bits import copied, difference, picture
from tests.checkpoint.packed import Packed
from tests.checkpoint.test_hooks import Fused


class Scheduler:
    """Its state is whatever it is given."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def _mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp",))


def _sharded(seed: int) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    model = nn.Linear(4, 4)
    fully_shard(model, mesh=_mesh())
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def _manager(directory: Path, built: tuple[Any, Any], mode: str = "disabled") -> CheckpointManager:
    config = CheckpointConfig(dir=str(directory), async_mode=mode, commit_timeout_s=60.0)  # type: ignore[arg-type]
    return CheckpointManager(config, *built)


def _values(number: float, mesh: DeviceMesh) -> dict[str, Any]:
    """Values of ``extra`` that are a rank's own, of every kind."""
    rank = dist.get_rank()
    local = torch.full((2, 3), number)
    return {
        "common": 5,
        "number": number,
        "tensor": torch.full((3, 2), number).t(),
        "array": np.zeros(2, np.int32) if rank else np.zeros(2, np.float32),
        "depth": {"a": {"b": 1}, "c": 2} if rank else {"a": {"b": 1, "c": 2}},
        "kind": [1, True, "1"] if rank else [1, 1, 1],
        "zero": -0.0 if rank else 0.0,
        "ema": {"of": [DTensor.from_local(local, mesh, [Shard(0)]), (1, 2)]},
        "same": DTensor.from_local(torch.ones(2), mesh, [Replicate()]),
        "packed": (Packed.of(local, {"rank": rank}),),
        **({"only on the second": {3: number}} if rank else {}),
    }


def extra_comes_back(rank: int, directory: Path, mode: str) -> list[str]:
    """Where the values differ that two saves and loads gave back, a new model each time."""
    found = []
    for step in (1, 2):
        built = _sharded(step)
        values = _values(step + 10.0 * rank, built[0].weight.device_mesh)
        scheduler = Scheduler(_values(step + 20.0 * rank, built[0].weight.device_mesh))
        expected = copied({key: values[key] for key in values if key not in ("ema", "same")})
        held = _manager(directory, built, mode)
        held.save(step, scheduler=scheduler, extra=values)
        values["tensor"].zero_()
        scheduler.state["ema"]["of"][0].to_local().zero_()
        held.wait()
        built = _sharded(7)
        scheduler = Scheduler()
        extra = _manager(directory, built).load(scheduler=scheduler)[2]
        fresh = built[0].weight.device_mesh
        for key in ("ema", "same"):
            expected[key] = _values(step + 10.0 * rank, fresh)[key]
        found.append(difference(expected, extra))
        found.append(difference(_values(step + 20.0 * rank, fresh), scheduler.state))
    return found


def extra_elsewhere(rank: int, directory: Path) -> tuple[str, bool, dict[str, str]]:
    """The error in another layout, whether anything changed, and what comes without those keys."""
    built = _sharded(9)
    before = picture(*built)
    error = ""
    held = _manager(directory, built)
    try:
        held.load()
    except CheckpointError as caught:
        error = f"{type(caught).__name__}: {caught}"
    changed = bool(difference(before, picture(*built)))
    excluded = ["ema", "same", "packed", "scheduler"]
    extra = held.load(exclude_keys=excluded)[2]
    return error, changed, {key: repr(value) for key, value in extra.items()}


def unknown_meshes(rank: int, directory: Path) -> list[str]:
    """Errors of saves with a distributed tensor on a mesh that the model is not on."""
    other = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("other",))
    value = DTensor.from_local(torch.ones(2), other, [Shard(0)])
    built = _sharded(1)
    held = _manager(directory, built)
    moments = _sharded(2)
    moments[1].state[moments[0].weight]["factor"] = value
    calls: list[Any] = [
        lambda: held.save(1, extra={"mine": {"deep": [value]}}),
        lambda: held.save(1, scheduler=Scheduler({"average": value})),
        lambda: _manager(directory, moments).save(1),
    ]
    found = []
    for call in calls:
        try:
            call()
            found.append("saved")
        except CheckpointError as error:
            found.append(str(error))
    return [*found, *(path.name for path in directory.glob("step_*"))]


def _replicated(seed: int) -> tuple[Any, Any]:
    # It says that it is deprecated when it is imported, which is an error in the tests' process.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    return model, ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.5)


def _step(built: tuple[Any, Any], number: float) -> None:
    for param in built[0].parameters():
        param.grad = torch.full_like(param, number)
    built[1].step()


def _held(built: tuple[Any, Any]) -> dict[str, Any]:
    return picture(built[0], getattr(built[1], "optim", built[1]))


def partitioned(rank: int, directory: Path, mode: str) -> list[Any]:
    """A partitioned optimizer over two resumes: what differs, and how many moments a rank has."""
    built = _replicated(1)
    found: list[Any] = []
    for step in (1, 2):
        _step(built, step)
        expected = _held(built)
        held = _manager(directory, built, mode)
        held.save(step)
        _step(built, 5.0)
        held.wait()
        after = _held(built)
        built = _replicated(10 + step)
        _manager(directory, built).load()
        found.append(difference(expected, _held(built)))
        found.append(len(built[1].optim.state))
        _step(built, 5.0)
        found.append(difference(after, _held(built)))
    return found


def partitioned_elsewhere(rank: int, directory: Path) -> tuple[str, bool]:
    """The error of a partitioned optimizer in another layout, and whether anything changed."""
    built = _replicated(3)
    before = _held(built)
    try:
        _manager(directory, built).load()
    except CheckpointError as caught:
        return f"{type(caught).__name__}: {caught}", bool(difference(before, _held(built)))
    return "", True


def packed_and_fused_shards(rank: int, directory: Path, mode: str) -> list[str]:
    """Wrappers in distributed moments and weights, and hooks, under FSDP2."""

    def build(seed: int) -> tuple[Any, Any]:
        torch.manual_seed(seed)
        model: Any = nn.Sequential(Fused(), nn.Linear(4, 4))
        fully_shard(model, mesh=_mesh())
        mesh = model[1].weight.device_mesh
        codes = Packed.of(torch.randn(2, 3) + rank)
        base = DTensor.from_local(codes, mesh, [Shard(0)], run_check=False)
        model.base = nn.Parameter(base, requires_grad=False)
        trained = [param for param in model.parameters() if param.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
        return model, optimizer

    built, found = build(1), []
    for step in (1, 2):
        for param in built[1].param_groups[0]["params"]:
            param.grad = torch.full_like(param, step)
        built[1].step()
        weight = built[0][1].weight
        moment = Packed.of(torch.randn(2, 4) + rank)
        built[1].state[weight]["packed"] = DTensor.from_local(
            moment, weight.device_mesh, [Shard(0)], run_check=False
        )
        expected = _whole_of(built)
        held = _manager(directory, built, mode)
        held.save(step)
        moment.codes.zero_()
        held.wait()
        built = build(5 + step)
        _manager(directory, built).load()
        found.append(difference(expected, _whole_of(built)))
    return found


def _whole_of(built: tuple[Any, Any]) -> dict[str, Any]:
    """Local parts by name; a mesh cannot be copied."""
    names = {id(param): name for name, param in built[0].named_parameters()}
    found = {name: copied(param._local_tensor) for name, param in built[0].named_parameters()}
    for param, state in built[1].state.items():
        for key, value in state.items():
            found[f"{names[id(param)]} {key}"] = copied(value._local_tensor)
    return found
