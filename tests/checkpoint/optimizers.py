"""Small optimizers that keep their state in the ways that real ones do."""

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def _trained(optimizer: Optimizer) -> Any:
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.grad is not None:
                yield group, param


def _local(tensor: Any) -> Any:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MuonLike(Optimizer):
    """Momentum for matrices; an inner Adam for the rest, in entries of its own."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self._inner: dict[str, Any] = {}
        self._initial_lr = lr
        self._all = [param for group in self.param_groups for param in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group, param in _trained(self):
            if param.dim() == 2:
                buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
                param.sub_(buffer.mul_(0.9).add_(param.grad), alpha=group["lr"])
                continue
            index = next(n for n, other in enumerate(self._all) if other is param)
            inner = self._inner.setdefault(
                str(index), {"step": 0, "exp_avg": torch.zeros_like(param), "betas": (0.9, 0.99)}
            )
            inner["step"] += 1
            inner["exp_avg"].lerp_(param.grad, 1 - inner["betas"][0])
            param.sub_(inner["exp_avg"], alpha=self._initial_lr / inner["step"])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_inner": self._inner, "_initial_lr": self._initial_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._inner = state_dict["_inner"]
        self._initial_lr = state_dict["_initial_lr"]
        standard = {key: state_dict[key] for key in ("state", "param_groups")}
        super().load_state_dict(standard)


class ScheduleFreeLike(Optimizer):
    """Counters in the groups; an extra step, or a reset counter, divides by zero or diverges."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "k": 0, "weight_sum": 0.0, "train_mode": True})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["weight_sum"] += group["lr"] ** 2
            group["k"] += 1
        for group, param in _trained(self):
            z = self.state[param].setdefault("z", param.clone())
            z.sub_(param.grad, alpha=group["lr"])
            param.lerp_(z, group["lr"] ** 2 / group["weight_sum"])


class LateMomentum(Optimizer):
    """No buffer, but an entry for it, after the first step."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group, param in _trained(self):
            state = self.state[param]
            if "buffer" not in state:
                state["buffer"] = None
            elif state["buffer"] is None:
                state["buffer"] = param.grad.clone()
            else:
                state["buffer"].mul_(0.9).add_(param.grad)
            update = param.grad if state["buffer"] is None else state["buffer"]
            param.sub_(update, alpha=group["lr"])


class FactoredLocally(Optimizer):
    """Row statistics and a norm of the rank's own shard, under one name on every rank."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group, param in _trained(self):
            grad, local = _local(param.grad), _local(param)
            state = self.state[param]
            rows = state.setdefault("rows", torch.zeros(grad.shape[:-1]))
            rows.mul_(0.9).add_(grad.pow(2).mean(-1) + 1e-8)
            state["norm"] = float(grad.norm()) + state.get("norm", 0.0)
            update = grad * rows.rsqrt().unsqueeze(-1) / (1.0 + state["norm"])
            local.sub_(update, alpha=group["lr"])


class Factored(Optimizer):
    """Row statistics as distributed tensors of another shape than the parameter."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group, param in _trained(self):
            if param.dim() < 2:
                continue
            mean = param.grad.pow(2).mean(-1)
            state = self.state[param]
            state["rows"] = mean + 1e-8 if "rows" not in state else state["rows"] * 0.9 + mean
            param.sub_(param.grad * state["rows"].rsqrt().unsqueeze(-1), alpha=group["lr"])


def _groups(named: dict[str, Any]) -> list[dict[str, Any]]:
    weights = [p for n, p in named.items() if n.endswith("weight")]
    biases = [p for n, p in named.items() if n.endswith("bias")]
    return [{"params": weights, "lr": 0.02}, {"params": biases, "lr": 0.005}]


_OF_PARAMETERS: dict[str, Callable[[Any], Optimizer]] = {
    "muon": lambda params: MuonLike(params, 0.02),
    "schedule_free": lambda params: ScheduleFreeLike(params, 0.05),
    "late_momentum": lambda params: LateMomentum(params, 0.02),
    "factored_locally": lambda params: FactoredLocally(params, 0.01),
    "factored": lambda params: Factored(params, 0.01),
    "sgd_plain": lambda params: torch.optim.SGD(params, lr=0.1),
    "fused": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    "tensor_lr": lambda params: torch.optim.Adam(params, lr=torch.tensor(0.01), foreach=False),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.01),
}
_OF_GROUPS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd_groups": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "amsgrad": lambda groups: torch.optim.AdamW(groups, amsgrad=True, foreach=True),
}
KINDS = (*_OF_PARAMETERS, *_OF_GROUPS)


def build(kind: str, named: dict[str, Any]) -> Optimizer:
    """An optimizer; ``unused`` never has a gradient, ``frozen`` may be in no group."""
    if kind in _OF_GROUPS:
        return _OF_GROUPS[kind](_groups(named))
    params = [param for name, param in named.items() if not name.startswith("frozen")]
    return _OF_PARAMETERS[kind](params)
