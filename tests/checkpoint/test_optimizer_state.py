"""An optimizer's state is restored in whatever form it has, or refused by name."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from kempnerforge.checkpoint import CheckpointError, CheckpointManager, StateMismatchError
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.checkpoint.bits import copied, difference, picture
from tests.checkpoint.optimizer_kinds import IN_BFLOAT16, KINDS, Counting, adamw, net, sgd


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
    assert (
        "of shape (2, 3) that is in none of its parameter groups; this state is not saved"
        in caplog.text
    )


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
