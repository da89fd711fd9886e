"""Forks ranks from a process that has loaded what they need; started by the tests as a process.

A request is a line of JSON on standard input, its answer a line on what was standard output.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch._inductor.compile_fx
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.optim

import kempnerforge.checkpoint  # noqa: F401  # loaded here, as all above, so that no rank has to
from tests.world.catalogue import SERVED
from tests.world.rank import PHASES, run

_DEADLINE_S = 300.0
"""For what takes a second: it only ends what hangs, on a machine that many share too."""
_PRELOADED = {
    "accelerate": ("accelerate",),
    "peft": ("peft",),
    "schedulefree": ("schedulefree",),
    "timm": (),  # cannot be imported whole without torchvision
    "torchao": ("torchao.optim",),
    "transformers": (
        "transformers.models.gpt2.modeling_gpt2",
        "transformers.models.llama.modeling_llama",
        "transformers.models.mixtral.modeling_mixtral",
        "transformers.models.vit.modeling_vit",
        "transformers.optimization",
    ),
}
"""Modules of each package that things use, loaded once."""


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        gc.disable()
        for package in SERVED[request["thing"]].needs:
            for module in _PRELOADED[package]:
                importlib.import_module(module)
        gc.collect()
        gc.freeze()  # the ranks share the pages
        gc.enable()
        answers.write(json.dumps(_serve(**request)) + "\n")


def _serve(thing: str, phase: str, directory: str) -> dict[str, Any]:
    """Reports of all ranks, and the number of the signal that ended each, 0 for none."""
    ranks = SERVED[thing].ranks
    pipes, processes = [], []
    for rank in range(ranks):
        here, there = os.pipe()
        process = os.fork()
        if process == 0:
            _be_rank(thing, phase, Path(directory), rank, there)
        os.close(there)
        pipes.append(here)
        processes.append(process)
    reports = _collect(pipes)
    if PHASES[phase].save is not None or any("error" in report for report in reports):
        # All stand still before the first is gone, so that none ends because of another.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                os.kill(process, number)
    signals = [os.WTERMSIG(os.waitpid(process, 0)[1]) for process in processes]
    for pipe in pipes:
        os.close(pipe)
    return {"reports": reports, "signals": signals}


def _collect(pipes: list[int]) -> list[Any]:
    """One line of each, or in its place what is wrong with it."""
    deadline = time.monotonic() + _DEADLINE_S
    found = dict.fromkeys(pipes, b"")
    waiting = set(pipes)
    while waiting:
        ready, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for pipe in ready:
            data = os.read(pipe, 1 << 20)
            found[pipe] += data
            if not data or data.endswith(b"\n"):
                waiting.discard(pipe)
    return [
        json.loads(text if text.endswith(b"\n") else b'{"error": "no report of it in time"}')
        for text in found.values()
    ]


def _be_rank(thing: str, phase: str, directory: Path, rank: int, pipe: int) -> None:
    """Never returns."""
    code = 1
    try:
        log = os.open(directory / f"{phase}-{rank}.log".replace(" ", "-"), os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if SERVED[thing].ranks > 1:
            store = directory / f"store-{phase.replace(' ', '-')}"
            dist.init_process_group(
                "gloo", init_method=f"file://{store}", rank=rank, world_size=SERVED[thing].ranks
            )

        def report(value: dict[str, Any]) -> None:
            data = json.dumps(value).encode() + b"\n"
            while data:
                data = data[os.write(pipe, data) :]

        run(SERVED[thing], PHASES[phase], directory / "checkpoints", report)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
