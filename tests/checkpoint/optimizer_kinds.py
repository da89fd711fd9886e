"""Optimizers whose state dicts have the forms that real ones use, by kind."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW


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
