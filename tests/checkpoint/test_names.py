"""Names of parameters: wrappers, sharing, shapes, missing and unexpected ones."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from kempnerforge.checkpoint import CheckpointManager, StateMismatchError
from kempnerforge.config.schema import CheckpointConfig


class Tied(nn.Module):
    """An embedding whose weight is the head's, too."""

    def __init__(self, *, tied: bool, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, width)
        self.body: nn.Module = nn.Linear(width, width)
        self.head = nn.Linear(width, 6, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(self.embed(x)))


def manager(directory: Path, model: nn.Module) -> CheckpointManager:
    config = CheckpointConfig(dir=str(directory), keep_last_n=0)
    return CheckpointManager(config, model, torch.optim.AdamW(model.parameters(), lr=0.1))


def train(model: nn.Module, held: CheckpointManager) -> torch.Tensor:
    loss: Any = model(torch.arange(6)).pow(2).sum()
    loss.backward()
    held._optimizer.step()
    held._optimizer.zero_grad()
    found: torch.Tensor = loss.detach()
    return found


# Dynamo says this under Python 3.13.0, whose dicts it has to watch in another way; 3.13.1 is well.
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_compiled_wrapped_and_plain_models_hand_on_one_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    straight = Tied(tied=True)
    start = {name: value.clone() for name, value in straight.state_dict().items()}
    held = manager(tmp_path / "straight", straight)
    expected = [train(straight, held) for _ in range(4)]
    found = []
    for step, wrap in enumerate((_compiled, _plain, _wrapped, _compiled)):
        torch.manual_seed(step + 1)
        model = Tied(tied=True)
        model.load_state_dict(start)
        wrapped = wrap(model)
        held = manager(tmp_path / "run", wrapped)
        if step:
            assert held.load()[0] == step
        found.append(train(wrapped, held))
        assert model.head.weight is model.embed.weight
        held.save(step + 1)
    assert torch.equal(torch.stack(found), torch.stack(expected))


def _compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def _plain(model: nn.Module) -> nn.Module:
    return model


def _wrapped(model: Any) -> nn.Module:
    model.body = checkpoint_wrapper(model.body)
    assert any("_checkpoint_wrapped_module" in name for name, _ in model.named_parameters())
    return model  # type: ignore[no-any-return]


def test_a_tied_checkpoint_loads_into_an_untied_model(tmp_path: Path) -> None:
    tied = Tied(tied=True)
    manager(tmp_path, tied).save(1)
    loose = Tied(tied=False)
    manager(tmp_path, loose).load()
    assert torch.equal(loose.head.weight, tied.embed.weight)
    assert torch.equal(loose.embed.weight, tied.embed.weight)


def test_another_shape_is_refused_by_name_and_both_shapes_before_any_change(
    tmp_path: Path,
) -> None:
    manager(tmp_path, Tied(tied=False)).save(1)
    model = Tied(tied=False, width=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(StateMismatchError, match=r"embed\.weight.*\(6, 4\).*\(6, 5\)"):
        manager(tmp_path, model).load()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_values_that_the_model_lacks_and_keys_that_exclude_nothing_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager(tmp_path, Tied(tied=False)).save(1)
    small: Any = Tied(tied=False)
    del small.head
    caplog.set_level(logging.WARNING)
    held = manager(tmp_path, small)
    assert held.load(exclude_keys=["no_such_key", "optimizer"])[0] == 1
    assert "step_1 are not in the model or the optimizer" in caplog.text
    assert "model.head.weight" in caplog.text
    assert "not in the checkpoint: ('no_such_key',)" in caplog.text
    caplog.clear()
    held.load(exclude_keys=["model.head", "optimizer", "rng", "scheduler", "dataloader"])
    assert caplog.text == ""
