"""The example in README.md runs, and resumes with the data that it had not read yet."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

README = Path(__file__).parents[2] / "README.md"
STEPS = 14


def example() -> str:
    (code,) = re.findall(r"## Using the package\n\n```python\n(.*?)```", README.read_text(), re.S)
    assert "interval=500" in code
    return str(code).replace("interval=500", "interval=4")


class Killed(BaseException):
    """Stands for the end of the process."""


class Job:
    """The names that the example takes from its surroundings."""

    def __init__(self, *, dies_after: int = STEPS + 99) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, total_iters=STEPS)
        self.dies_after = dies_after
        self.seen: list[tuple[Any, ...]] = []

    def train_step(self, batch: torch.Tensor) -> int:
        if len(self.seen) == self.dies_after:
            raise Killed
        self.optimizer.zero_grad()
        loss = self.model(batch[:, None]).square().mean()
        loss.backward()
        self.optimizer.step()
        lr = self.optimizer.param_groups[0]["lr"]
        self.seen.append((batch.tolist(), loss.item(), lr, torch.get_rng_state().tolist()))
        return len(batch)

    def run(self) -> None:
        self.names: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "dataset": torch.arange(40.0),  # five batches
            "total_steps": STEPS,
            "train_step": self.train_step,
        }
        code = compile(example(), "README.md", "exec")
        exec(code, self.names)  # noqa: S102  # of this repository

    def dies(self) -> None:
        with pytest.raises(Killed):
            self.run()
        self.names["manager"].wait()  # the save before is durable, as it would be by then


def test_the_example_goes_on_with_the_data_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = Job()
    whole.run()
    assert len(whole.seen) == 15  # whole epochs

    monkeypatch.chdir(tmp_path / "parts")
    first = Job(dies_after=7)
    first.dies()
    second = Job(dies_after=7)
    second.dies()
    third = Job()
    third.run()
    assert first.seen == whole.seen[:7]
    assert second.seen == whole.seen[4:11]
    assert third.seen == whole.seen[8:]
    assert third.names["tokens_seen"] == 15 * 8
    assert "WARNING" not in caplog.text
