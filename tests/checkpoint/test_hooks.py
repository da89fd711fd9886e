"""State that passes through a module's hooks and methods is restored by the module itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kempnerforge.checkpoint import CheckpointManager, StateMismatchError
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.checkpoint.bits import difference, picture
from tests.checkpoint.packed import Packed


class Fused(nn.Module):
    """One parameter; its state dict has three, made by a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(6, 2))
        self.register_state_dict_post_hook(Fused.take_apart)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(Fused.put_together)  # type: ignore[no-untyped-call]

    @staticmethod
    def take_apart(module: Any, state: Any, prefix: str, metadata: Any) -> None:
        parts = state.pop(f"{prefix}qkv").detach().chunk(3)
        state.update({prefix + name: part.clone() for name, part in zip("qkv", parts, strict=True)})

    @staticmethod
    def put_together(module: Any, state: Any, prefix: str, *rest: Any) -> None:
        state[f"{prefix}qkv"] = torch.cat([state.pop(prefix + name) for name in "qkv"])


class Copying(nn.Module):
    """The same name, but a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_state_dict_post_hook(self._copy)  # type: ignore[no-untyped-call]

    @staticmethod
    def _copy(module: Any, state: Any, prefix: str, metadata: Any) -> None:
        state[f"{prefix}weight"] = state[f"{prefix}weight"].detach().clone()


class Doubling(nn.Module):
    """Saves half of its weight, and doubles in place what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_state_dict_post_hook(self._halve)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(self._double)  # type: ignore[no-untyped-call]

    @staticmethod
    def _halve(module: Any, state: Any, prefix: str, metadata: Any) -> None:
        state[f"{prefix}weight"] = state[f"{prefix}weight"].detach() / 2

    @staticmethod
    def _double(module: Any, state: Any, prefix: str, *rest: Any) -> None:
        state[f"{prefix}weight"].mul_(2)


class Leaving(nn.Module):
    """Leaves its frozen base out."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.lora = nn.Parameter(torch.randn(3))
        self.register_state_dict_post_hook(self._leave)  # type: ignore[no-untyped-call]

    @staticmethod
    def _leave(module: Any, state: Any, prefix: str, metadata: Any) -> None:
        del state[f"{prefix}base"]


class Preparing(nn.Module):
    """Brings a buffer up to date before it is saved, and what depends on it once it is loaded."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("seen", torch.zeros(()))
        self.pending, self.doubled = 2.0, -1.0
        self.register_state_dict_pre_hook(self._flush)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(self._derive)  # type: ignore[no-untyped-call]

    @staticmethod
    def _flush(module: Any, prefix: str, keep_vars: bool) -> None:
        module.seen += module.pending
        module.pending = 0.0

    @staticmethod
    def _derive(module: Any, missing: Any) -> None:
        module.doubled = 2 * float(module.seen)


class Owning(nn.Module):
    """Has a tensor that only its own methods know, as quantised modules of torch have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.codes = torch.randn(3)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}codes"] = self.codes.clone()
        destination[f"{prefix}kind"] = "codes"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.codes = state_dict.pop(f"{prefix}codes").clone()
        assert state_dict.pop(f"{prefix}kind") == "codes"
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Overriding(nn.Module):
    """Takes part of it under other names; knows neither keep_vars nor strict."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.loads = 0

    def state_dict(self) -> Any:  # type: ignore[override]
        return {"renamed": super().state_dict()["weight"].clone()}

    def load_state_dict(self, state_dict: Any) -> Any:  # type: ignore[override]
        self.loads += 1
        return super().load_state_dict({"weight": state_dict["renamed"]})


class Passing(Overriding):
    """Passes on whatever else it is given."""

    def state_dict(self, *args: Any, **options: Any) -> Any:
        found = nn.Module.state_dict(self, *args, **options)
        found["renamed"] = found.pop("weight").detach().clone()
        return found

    def load_state_dict(self, state_dict: Any, **options: Any) -> Any:  # type: ignore[override]
        self.loads += 1
        given = {"weight": state_dict["renamed"]}
        return nn.Module.load_state_dict(self, given, **options)


class Handing(nn.Module):
    """Its extra state holds other tensors, and is made for whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.codes = Packed.of(torch.randn(3))

    def get_extra_state(self) -> Any:
        return self.codes.clone()

    def set_extra_state(self, state: Any) -> None:
        self.codes = state


class CopyingPacked(Copying):
    """The same of a weight that holds other tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(Packed.of(torch.randn(3)), requires_grad=False)
        self.other = nn.Parameter(torch.randn(3))


KINDS: dict[str, Callable[[], Any]] = {
    "fused": lambda: nn.Sequential(Fused(), nn.Linear(2, 2)),
    "copying": lambda: nn.Sequential(Copying(), nn.Linear(2, 2)),
    "doubling": lambda: nn.Sequential(Doubling(), nn.Linear(2, 2)),
    "leaving": lambda: nn.Sequential(Leaving(), nn.Linear(2, 2)),
    "owning": lambda: nn.Sequential(Owning(), nn.Linear(2, 2)),
    "handing": lambda: nn.Sequential(Handing(), nn.Linear(2, 2)),
    "copying packed": lambda: nn.Sequential(CopyingPacked(), nn.Linear(2, 2)),
    "overriding": Overriding,
    "passing": Passing,
}


def build(kind: str, seed: int) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    model = KINDS[kind]()
    params = [param for param in model.parameters() if param.requires_grad]
    return model, torch.optim.SGD(params, lr=0.1, momentum=0.9)


def manager(directory: Path, model: Any, optimizer: Any, **options: Any) -> CheckpointManager:
    return CheckpointManager(CheckpointConfig(dir=str(directory), **options), model, optimizer)


def step(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.ones_like(param)
    optimizer.step()


def all_of(model: Any, optimizer: Any) -> dict[str, Any]:
    own = [part.codes.clone() for part in model.modules() if isinstance(part, Owning | Handing)]
    return {**picture(model, optimizer), "own": own}


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_with_a_say_in_its_state_comes_back_twice(
    tmp_path: Path, kind: str, mode: AsyncCheckpointMode
) -> None:
    model, optimizer = build(kind, 0)
    for number in (1, 2):
        step(optimizer)
        expected = all_of(model, optimizer)
        held = manager(tmp_path, model, optimizer, async_mode=mode)
        held.save(number)
        step(optimizer)
        held.wait()
        model, optimizer = build(kind, 8 + number)
        assert manager(tmp_path, model, optimizer).load()[0] == number
        assert difference(expected, all_of(model, optimizer)) == ""


def test_an_overridden_load_state_dict_is_called_once(tmp_path: Path) -> None:
    for kind in ("overriding", "passing"):
        model, optimizer = build(kind, 0)
        manager(tmp_path / kind, model, optimizer).save(1)
        manager(tmp_path / kind, model, optimizer).load()
        assert model.loads == 1


def test_hooks_before_a_save_and_after_a_load_see_the_state_of_the_save(tmp_path: Path) -> None:
    saving = Preparing()
    manager(tmp_path, saving, torch.optim.SGD(saving.parameters())).save(1)
    found = Preparing()
    manager(tmp_path, found, torch.optim.SGD(found.parameters())).load()
    assert (float(found.seen), found.doubled) == (2.0, 4.0)


def test_a_hook_that_needs_all_of_its_keys_has_them_where_one_is_excluded(tmp_path: Path) -> None:
    model, optimizer = build("fused", 0)
    manager(tmp_path, model, optimizer).save(1)
    found, again = build("fused", 1)
    kept = found[0].qkv[:2].detach().clone()
    manager(tmp_path, found, again).load(exclude_keys=["model.0.q"])
    assert torch.equal(found[0].qkv[:2], kept)
    assert torch.equal(found[0].qkv[2:], model[0].qkv[2:])


def test_an_entry_that_a_hook_made_and_that_has_another_shape_is_refused_before_anything_changes(
    tmp_path: Path,
) -> None:
    model, optimizer = build("copying", 0)
    manager(tmp_path, model, optimizer).save(1)
    found, again = build("copying", 1)
    found[0].weight = nn.Parameter(torch.ones(4))
    before = picture(found, again)
    with pytest.raises(StateMismatchError, match=r"model\.0\.weight: the checkpoint has shape"):
        manager(tmp_path, found, again).load(exclude_keys=["optimizer"])
    assert difference(before, picture(found, again)) == ""


def test_an_entry_that_the_checkpoint_lacks_is_refused_before_anything_changes(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    manager(tmp_path, model, torch.optim.SGD(model.parameters())).save(1)
    found, optimizer = build("owning", 1)
    before = all_of(found, optimizer)
    with pytest.raises(StateMismatchError, match=r"lacks 4 values of the model: model\.0\.codes"):
        manager(tmp_path, found, optimizer).load(exclude_keys=["optimizer"])
    assert difference(before, all_of(found, optimizer)) == ""
