"""Changes after `save` has returned do not reach the checkpoint, whatever they change."""

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.protocol.save_messages import Published
from kempnerforge.checkpoint.runtime.driver import ProtocolRun
from kempnerforge.config.schema import (
    AsyncCheckpointMode,
    CheckpointConfig,
    DynamicCheckpointWindow,
)


class Live:
    """A scheduler or loader whose `state_dict` is what it works with, not a copy."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {
            "count": 1,
            "list": [1, [2, 3]],
            "dict": {"inner": {"value": "old"}},
            "tensor": torch.ones(3),
            "nested": [{"tensor": torch.arange(4)}],
        }

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state

    def change(self) -> None:
        change(self.state)


def change(state: dict[str, Any]) -> None:
    """Change everything in it, in place."""
    state["count"] = 2
    state["list"][1].append(9)
    state["list"][0] = 9
    state["dict"]["inner"]["value"] = "new"
    state["tensor"].add_(5)
    state["nested"][0]["tensor"].zero_()
    state["more"] = "added"


class Net(nn.Linear):
    """With a buffer, and extra state that is live."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__(160, 160)  # beyond the size below which a tensor is copied anyway
        self.register_buffer("seen", torch.zeros(2))
        self.kept: dict[str, Any] = {"list": [1, 2], "tensor": torch.ones(2)}

    def get_extra_state(self) -> dict[str, Any]:
        return self.kept

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.kept = state


class Run:
    """Everything that a save is given."""

    def __init__(self, directory: Path, mode: AsyncCheckpointMode) -> None:
        torch.manual_seed(1)
        self.model = Net()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=torch.tensor(0.1))
        self.optimizer.param_groups[0]["note"] = [1, 2]
        self.config = CheckpointConfig(
            dir=str(directory),
            async_mode=mode,
            keep_last_n=1,
            dyn_ckpt_window=DynamicCheckpointWindow(start=1, stop=1),
        )
        self.manager = CheckpointManager(self.config, self.model, self.optimizer)
        self.scheduler, self.loader = Live(), Live()
        self.extra = {**Live().state, "vlm_freeze": [{"module": "adapter", "frozen": True}]}

    def train(self) -> None:
        self.model(torch.ones(160)).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, step: int) -> None:
        self.manager.save(step, 10 * step, self.scheduler, self.loader, self.extra)

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state,
                "loader": self.loader.state,
            }
        )


def change_weights(run: Run) -> None:
    run.train()
    with torch.no_grad():
        run.model.weight.zero_()
        run.model.seen.add_(1)


def change_extra_state_of_the_model(run: Run) -> None:
    run.model.kept["list"].append(3)
    run.model.kept["tensor"].zero_()


def change_moments(run: Run) -> None:
    for state in run.optimizer.state.values():
        state["exp_avg"].fill_(7)
        state["step"].add_(1)


def change_groups(run: Run) -> None:
    group = run.optimizer.param_groups[0]
    group["lr"].mul_(0.5)
    group["betas"] = (0.5, 0.5)
    group["note"].append(3)


def change_scheduler(run: Run) -> None:
    run.scheduler.change()


def change_loader(run: Run) -> None:
    run.loader.change()


def change_extra(run: Run) -> None:
    change(run.extra)
    run.extra["vlm_freeze"][0]["frozen"] = False
    run.extra["vlm_freeze"].append({"module": "transformer", "frozen": True})


def change_config(run: Run) -> None:
    run.config.dyn_ckpt_window = None
    run.config.dir = "elsewhere"
    run.config.async_mode = AsyncCheckpointMode.disabled


def change_generators(run: Run) -> None:
    torch.rand(1)


CHANGES = (
    change_weights,
    change_extra_state_of_the_model,
    change_moments,
    change_groups,
    change_scheduler,
    change_loader,
    change_extra,
    change_config,
    change_generators,
)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Background saves begin when it is set: what they do, they do after the change."""
    event = threading.Event()
    run = ProtocolRun.run

    def later(job: ProtocolRun[Published]) -> Published:
        event.wait()
        return run(job)

    monkeypatch.setattr(ProtocolRun, "run", later)
    return event


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("change_it", CHANGES)
def test_what_changes_after_a_save_has_returned_does_not_reach_the_checkpoint(
    tmp_path: Path,
    gate: threading.Event,
    mode: AsyncCheckpointMode,
    change_it: Callable[[Run], None],
) -> None:
    run = Run(tmp_path / "checkpoints", mode)
    run.train()
    gate.set()
    run.save(1)  # a milestone, which retention keeps
    run.manager.wait()
    if mode is not AsyncCheckpointMode.disabled:
        gate.clear()
    expected, extra, generator = run.state(), copy.deepcopy(run.extra), torch.get_rng_state()
    run.save(3)
    change_it(run)
    gate.set()
    run.manager.wait()

    root = tmp_path / "checkpoints"
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step_1", "step_3"]
    metadata = json.loads((root / "step_3" / "metadata.json").read_text())
    assert metadata["vlm_freeze"] == [{"module": "adapter", "frozen": True}]
    found = Run(root, mode)
    step, tokens_seen, loaded = found.manager.load(
        scheduler=found.scheduler, dataloader=found.loader
    )
    assert (step, tokens_seen) == (3, 30)
    assert equal(found.state(), expected)
    assert equal(loaded, extra)
    assert torch.equal(torch.get_rng_state(), generator)
