"""What an optimizer says it holds comes back, whatever form it has, or is refused by name."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from kempnerforge.checkpoint import CheckpointError, CheckpointManager, StateMismatchError
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.checkpoint.bits import copied, difference, picture


class Together:
    """Several optimizers in one, which only ``state_dict()`` tells, as a list."""

    def __init__(self, *optimizers: Any) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[Any]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> Any:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, said: Any) -> None:
        for optimizer, mine in zip(self.optimizers, said, strict=True):
            optimizer.load_state_dict(mine)


class MasterWeights:
    """Moments in float32 of parameters in bfloat16; ``state`` is made anew for each that asks."""

    def __init__(self, model: nn.Module) -> None:
        self.params = list(model.parameters())
        self.masters = [param.detach().float().requires_grad_() for param in self.params]
        self.inner = AdamW(self.masters, lr=0.1)

    @property
    def state(self) -> Any:
        found = self.state_dict()["state"]
        return {param: found[index] for index, param in enumerate(self.params)}

    @property
    def param_groups(self) -> list[Any]:
        return [{**group, "params": self.params} for group in self.inner.param_groups]

    def zero_grad(self) -> None:
        for param in self.params:
            param.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for param, master in zip(self.params, self.masters, strict=True):
            assert param.grad is not None
            master.grad = param.grad.float()
        self.inner.step()
        for param, master in zip(self.params, self.masters, strict=True):
            param.copy_(master)

    def state_dict(self) -> Any:
        said = self.inner.state_dict()
        masters = enumerate(self.masters)
        state = {n: {**said["state"].get(n, {}), "master": one.detach()} for n, one in masters}
        return {**said, "state": state}

    @torch.no_grad()
    def load_state_dict(self, said: Any) -> None:
        state = {index: dict(entries) for index, entries in said["state"].items()}
        for index, master in enumerate(self.masters):
            master.copy_(state[index].pop("master"))
        self.inner.load_state_dict({**said, "state": state})


class FloatMoments(torch.optim.Optimizer):
    """Has moments in float32, whatever the type of the parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for param in self.param_groups[0]["params"]:
            moment = self.state[param].setdefault("m", torch.zeros_like(param, dtype=torch.float32))
            param.sub_(moment.mul_(0.9).add_(param.grad), alpha=0.1)


class Outside:
    """Shows what an optimizer holds that it does not show itself."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.zero_grad, self.step = inner.zero_grad, inner.step
        self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict
        self.param_groups = inner.param_groups


class Counting(SGD):
    """Keeps a sum of what it holds beside it, made anew by ``load_state_dict``."""

    total = 0.0

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.total = sum(float(value["momentum_buffer"].sum()) for value in self.state.values())


class Pair(SGD):
    """Has entries beside the standard ones."""

    fast: Any = 0

    def state_dict(self) -> Any:
        return {**super().state_dict(), "fast": self.fast, "more": {"k": torch.ones(2)}}

    def load_state_dict(self, state_dict: Any) -> None:
        self.fast = state_dict["fast"]
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})


def net(seed: int, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).to(dtype)


def adamw(model: Any) -> Any:
    return AdamW(model.parameters(), lr=0.1)


def sgd(model: Any) -> Any:
    return SGD(model.parameters(), lr=0.1, momentum=0.9)


def together(model: Any) -> Any:
    return Together(adamw(model[0]), sgd(model[1]))


class Closed(torch.optim.LBFGS):
    """Steps without being given what to minimise."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.parameters(), lr=0.1)
        self._model = model

    def step(self) -> None:  # type: ignore[override]
        super().step(self._again)  # type: ignore[no-untyped-call]

    def _again(self) -> Any:
        self.zero_grad()
        loss = self._model(torch.ones(2, 3)).pow(2).mean()
        loss.backward()
        return loss


def named_state(model: Any) -> Any:
    optimizer = adamw(model)
    optimizer.state["global"] = {"x": torch.ones(2), "n": 3}
    optimizer.state[7] = [1, (2, 3)]
    return optimizer


KINDS: dict[str, Callable[[Any], Any]] = {
    "adamw": adamw,
    "together": together,
    "master_weights": MasterWeights,
    "lbfgs": Closed,
    "named_state": named_state,
    "float_moments": FloatMoments,
    "outside": lambda model: Outside(FloatMoments(model)),
    "pair": lambda model: Pair(model.parameters(), lr=0.1, momentum=0.9),
    "counting": lambda model: Counting(model.parameters(), lr=0.1, momentum=0.9),
}


IN_BFLOAT16 = ("master_weights", "float_moments", "outside")


def manager(directory: Path, model: Any, optimizer: Any, **options: Any) -> CheckpointManager:
    return CheckpointManager(CheckpointConfig(dir=str(directory), **options), model, optimizer)


def train(model: Any, optimizer: Any, steps: int) -> None:
    dtype = next(model.parameters()).dtype
    for number in range(steps):
        optimizer.zero_grad()
        model(torch.full((2, 3), number + 1.0, dtype=dtype)).pow(2).mean().backward()
        optimizer.step()


def all_of(model: Any, optimizer: Any) -> dict[str, Any]:
    return {**picture(model, optimizer), "said": copied(optimizer.state_dict())}


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_optimizer_goes_on_as_the_one_that_was_saved_twice(
    tmp_path: Path, kind: str, mode: AsyncCheckpointMode
) -> None:
    dtype = torch.bfloat16 if kind in IN_BFLOAT16 else torch.float32
    model = net(1, dtype)
    optimizer = KINDS[kind](model)
    for step in (1, 2):
        train(model, optimizer, 2)
        saved = all_of(model, optimizer)
        held = manager(tmp_path, model, optimizer, async_mode=mode)
        held.save(step)
        train(model, optimizer, 2)
        held.wait()
        expected = all_of(model, optimizer)
        model = net(2 + step, dtype)
        optimizer = KINDS[kind](model)
        assert manager(tmp_path, model, optimizer).load()[0] == step
        assert difference(saved, all_of(model, optimizer)) == ""
        train(model, optimizer, 2)
        assert difference(expected, all_of(model, optimizer)) == ""


PAIRS = [("together", "adamw"), ("adamw", "together"), ("pair", "together")]


@pytest.mark.parametrize(("then", "now"), PAIRS)
def test_an_optimizer_that_tells_its_state_in_another_way_is_refused_before_anything_changes(
    tmp_path: Path, then: str, now: str
) -> None:
    model = net(1)
    optimizer = KINDS[then](model)
    train(model, optimizer, 2)
    manager(tmp_path, model, optimizer).save(1)
    model = net(2)
    optimizer = KINDS[now](model)
    before = all_of(model, optimizer)
    held = manager(tmp_path, model, optimizer)
    with pytest.raises(StateMismatchError, match="the state of the optimizer"):
        held.load(exclude_keys=["optimizer.param_groups"])
    assert difference(before, all_of(model, optimizer)) == ""
    assert held.load(exclude_keys=["optimizer"])[0] == 1


def test_a_key_of_the_state_that_is_a_module_is_refused_by_name(tmp_path: Path) -> None:
    model = net(1)
    optimizer = adamw(model)
    optimizer.state[model[0]] = {"x": 1}
    with pytest.raises(CheckpointError, match="has a key of type Linear"):
        manager(tmp_path, model, optimizer).save(1)
    assert list(tmp_path.glob("step_*")) == []


def test_what_was_not_saved_is_not_cleared(tmp_path: Path) -> None:
    model = net(1)
    manager(tmp_path, model, sgd(model)).save(1)
    optimizer = sgd(model)
    optimizer.state["mine"] = {"x": 1}
    manager(tmp_path, model, optimizer).load()
    assert optimizer.state["mine"] == {"x": 1}


def test_moments_that_came_after_the_save_are_cleared(tmp_path: Path) -> None:
    model = net(1)
    optimizer = sgd(model)
    held = manager(tmp_path, model, optimizer)
    held.save(1)
    train(model, optimizer, 1)
    held.load()
    assert not any(optimizer.state.values())


def test_hooks_of_the_optimizer_are_called_at_a_save_and_at_a_load(tmp_path: Path) -> None:
    model = net(1)
    optimizer = sgd(model)

    def flush(held: Any) -> None:
        held.state[model[0].weight]["flushed"] = torch.tensor(5.0)

    optimizer.register_state_dict_pre_hook(flush)
    manager(tmp_path, model, optimizer).save(1)
    again = sgd(model)
    called: list[Any] = []
    again.register_load_state_dict_pre_hook(lambda held, said: called.append(len(said["state"])))
    again.register_load_state_dict_post_hook(lambda held: called.append(list(held.state.values())))
    manager(tmp_path, model, again).load()
    assert called == [1, [{"flushed": torch.tensor(5.0)}]]
    assert again.state[model[0].weight] == {"flushed": torch.tensor(5.0)}


def test_what_load_state_dict_makes_anew_is_made_of_what_was_saved(tmp_path: Path) -> None:
    model = net(1)
    optimizer = Counting(model.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    train(model, optimizer, 2)
    manager(tmp_path, model, optimizer).save(1)
    total = sum(float(value["momentum_buffer"].sum()) for value in optimizer.state.values())
    again = Counting(model.parameters(), lr=torch.tensor(0.5), momentum=0.9)
    rate = again.param_groups[0]["lr"]
    manager(tmp_path, model, again).load()
    assert again.total == total
    assert again.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1)


def test_state_of_a_parameter_that_is_in_no_group_is_said_not_to_be_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = net(1)
    optimizer = SGD(model[0].parameters(), lr=0.1)
    optimizer.state[model[1].weight]["x"] = torch.ones(2)
    with caplog.at_level(logging.WARNING):
        manager(tmp_path, model, optimizer).save(1)
    assert "of shape (2, 3) that is in none of its parameter groups; it is not saved" in caplog.text


def test_an_optimizer_of_another_model_is_refused_at_load_in_words(tmp_path: Path) -> None:
    model = net(1)
    manager(tmp_path, model, sgd(model)).save(1)
    held = manager(tmp_path, model, sgd(net(2)))
    with pytest.raises(StateMismatchError, match="holds 4 parameters that are not the model's"):
        held.load()
    assert held.load(exclude_keys=["optimizer"])[0] == 1


def test_an_object_that_would_not_come_back_is_refused_by_its_name(tmp_path: Path) -> None:
    model = net(1)
    optimizer = sgd(model)
    held = manager(tmp_path, model, optimizer)
    optimizer.state["mine"] = {"x": [object()]}
    with pytest.raises(CheckpointError, match=r"optimizer\.state\['mine'\] holds an object"):
        held.save(1)
    del optimizer.state["mine"]
    optimizer.state[model[0].weight]["x"] = {1: object()}
    with pytest.raises(CheckpointError, match=r"optimizer\.state\.0\.weight\.x holds an object"):
        held.save(1)


def test_a_key_that_is_excluded_and_was_saved_is_not_said_to_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = net(1)
    held = manager(tmp_path, model, sgd(model))
    held.save(1, extra={"note": "n"})
    with caplog.at_level(logging.WARNING):
        assert held.load(exclude_keys=["note"])[2] == {}
        assert "not in the checkpoint" not in caplog.text
        held.load(exclude_keys=["other"])
    assert "excluded from loading, but not in the checkpoint: ('other',)" in caplog.text
