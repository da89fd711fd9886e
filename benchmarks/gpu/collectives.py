"""Finds the collectives that work if two ranks share a GPU; each is tried in two processes.

    python -m benchmarks.gpu.collectives WAY OPERATION RANK DIRECTORY DEVICE

Each has its own processes, because one that is missing may end its process, or never return.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from harness.jobs.training.devices import take_device
from harness.plan.make import make_plan
from harness.plan.model import LEASED, Implementation, Workload
from harness.plan.place import place_plan
from harness.scenario.schema import Scenario

_SIZE = 2
_LIMIT_S = 40.0
"""For one operation, so that the step stays within ten minutes."""
_MOST_ERROR = 600
"""Characters of an error that are kept, from its end."""


def _broadcast(device: str, rank: int) -> bool:
    value = torch.full((4,), float(rank + 1), device=device)
    dist.broadcast(value, src=0)
    return value.tolist() == [1.0] * 4


def _all_reduce(device: str, rank: int) -> bool:
    value = torch.full((4,), float(rank + 1), device=device)
    dist.all_reduce(value)
    return value.tolist() == [3.0] * 4


def _all_gather(device: str, rank: int) -> bool:
    found = torch.empty(4, device=device)
    dist.all_gather_into_tensor(found, torch.full((2,), float(rank), device=device))
    return found.tolist() == [0.0, 0.0, 1.0, 1.0]


def _reduce_scatter(device: str, rank: int) -> bool:
    found = torch.empty(2, device=device)
    dist.reduce_scatter_tensor(found, torch.arange(4.0, device=device))
    return found.tolist() == [4.0 * rank, 4.0 * rank + 2]


def _mean_scatter(device: str, rank: int) -> bool:
    """As FSDP2 uses it."""
    found = torch.empty(2, device=device)
    dist.reduce_scatter_tensor(found, torch.arange(4.0, device=device), op=dist.ReduceOp.AVG)
    return found.tolist() == [2.0 * rank, 2.0 * rank + 1]


def _all_to_all(device: str, rank: int) -> bool:
    found = torch.empty(2, device=device)
    dist.all_to_all_single(found, torch.tensor([2.0 * rank, 2.0 * rank + 1], device=device))
    return found.tolist() == [0.0 + rank, 2.0 + rank]


def _send(device: str, rank: int) -> bool:
    value = torch.full((4,), float(rank + 1), device=device)
    if rank == 0:
        dist.send(value, dst=1)
        return True
    dist.recv(value, src=0)
    return value.tolist() == [1.0] * 4


OPERATIONS: dict[str, Callable[[str, int], bool]] = {
    "broadcast": _broadcast,
    "all_reduce": _all_reduce,
    "all_gather_into_tensor": _all_gather,
    "reduce_scatter_tensor": _reduce_scatter,
    "reduce_scatter_tensor of means": _mean_scatter,
    "all_to_all_single": _all_to_all,
    "send and recv": _send,
}


def workload(device: str, way: str) -> Workload:
    """Returns the workload of two ranks that share one GPU."""
    scenario = Scenario.model_validate(
        {"name": "a", "device": device, "world": {"dp_shard": _SIZE}, "runs": ({"until_step": 1},)}
    )
    plan = make_plan(scenario, source="", implementation=Implementation())
    return place_plan(plan, present=1, jobs=1, sharing=way).workload


def try_all(device: str, way: str) -> dict[str, str]:
    """Tries all operations at once; returns `works` or the error for each."""
    with ThreadPoolExecutor(len(OPERATIONS)) as pool:
        tried = pool.map(lambda name: try_one(device, way, name), OPERATIONS)
        return dict(zip(OPERATIONS, tried, strict=True))


def try_one(device: str, way: str, name: str, *, limit_s: float = _LIMIT_S) -> str:
    """Returns `works`, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        # The GPU of the lease; if this machine shows us more GPUs, it is the first of them.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        Path(folder, LEASED).write_text(json.dumps([visible]), encoding="utf-8")
        words = [sys.executable, "-m", "benchmarks.gpu.collectives", way, name]
        ranks = [
            subprocess.Popen(
                [*words, str(rank), folder, device],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(_SIZE)
        ]  # fmt: skip
        return _verdict(ranks, limit_s)


def _verdict(ranks: list[subprocess.Popen[str]], limit_s: float) -> str:
    try:
        outputs = [rank.communicate(timeout=limit_s)[1] for rank in ranks]
    except subprocess.TimeoutExpired:
        return f"does not end within {limit_s:.0f} s"
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    codes = [rank.returncode for rank in ranks]
    if any(codes):
        worst = next(number for number, code in enumerate(codes) if code)
        return f"exit {codes[worst]}: {outputs[worst].strip()[-_MOST_ERROR:]}"
    return "works"


def main() -> None:
    """Run one rank; see the head of this module."""
    way, name, number, folder, device = sys.argv[1:]
    rank = int(number)
    chosen, backend = take_device(workload(device, way), rank, _SIZE, Path(folder))
    store = f"file://{Path(folder, 'store')}"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=_SIZE)
    if not OPERATIONS[name](chosen, rank):
        raise SystemExit("the values are wrong")
    if chosen != "cpu":
        torch.cuda.synchronize()
    dist.barrier()
    os._exit(0)  # the clean end of a group can hang even if its operations do not


if __name__ == "__main__":
    main()
