"""Optimizers that people train with, on a small network of vectors."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.world.models import squares
from tests.world.thing import Program, Thing, closure_step

Parameters = list[nn.Parameter]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 4))


def matrices() -> nn.Sequential:
    """A network whose weights are all matrices."""
    return nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4, bias=False))


def trained_by(
    make: Callable[[Parameters], Any],
    *,
    model: Callable[[], nn.Module] = net,
    inputs: int = 8,
    **options: Any,
) -> Callable[[], Program]:
    """Builds a program of that optimizer."""

    def build() -> Program:
        module = model()
        optimizer = make(list(module.parameters()))
        return Program(
            model=module, optimizer=optimizer, loss=squares(module, 4, inputs), **options
        )

    return build


def timm_optimizer(module: str, name: str) -> Any:
    """A class of ``timm.optim`` without timm's models, which want torchvision."""
    package = "timm_optim"
    if package not in sys.modules:
        found = importlib.util.find_spec("timm")
        assert found is not None
        assert found.origin is not None
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(Path(found.origin).parent / "optim")]
    return getattr(importlib.import_module(f"{package}.{module}"), name)


def _lookahead(params: Parameters) -> Any:
    return timm_optimizer("lookahead", "Lookahead")(torch.optim.AdamW(params, lr=0.05), k=2)


def _schedule_free(params: Parameters) -> Any:
    import schedulefree

    optimizer = schedulefree.AdamWScheduleFree(params, lr=0.05, warmup_steps=3)
    optimizer.train()
    return optimizer


def _schedule_free_wrapper(params: Parameters) -> Any:
    import schedulefree

    inner = torch.optim.SGD(params, lr=0.05, weight_decay=0.01)
    optimizer = schedulefree.ScheduleFreeWrapper(inner, momentum=0.9)
    optimizer.train()
    return optimizer


def _compile_nothing() -> None:
    """For what compiles its step with inductor, which takes a C++ compiler and half a minute."""
    torch.compiler.set_stance("force_eager")


def low_bit(name: str, **options: Any) -> Callable[[Parameters], Any]:
    def make(params: Parameters) -> Any:
        import torchao.optim

        _compile_nothing()
        return getattr(torchao.optim, name)(params, lr=0.01, **options)

    return make


def large() -> nn.Sequential:
    """Weights of 8,192 values, so that their moments have few bits, and one that has not."""
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64))


class Chain(torch.optim.Optimizer):
    """One optimizer over several: state and groups are made when asked for."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self.defaults = {}
        self._optimizer_state_dict_post_hooks = {}  # type: ignore[assignment]
        self._optimizer_load_state_dict_pre_hooks = {}  # type: ignore[assignment]

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:  # type: ignore[override]
        return {param: state for part in self.parts for param, state in part.state.items()}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {f"part {n}": part.state_dict() for n, part in enumerate(self.parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for n, part in enumerate(self.parts):
            part.load_state_dict(state_dict[f"part {n}"])


class Rotated(torch.optim.Optimizer):
    """Momentum in the basis of the gradient's covariance, as SOAP and Shampoo keep one.

    LAPACK gives eigenvectors column by column, so the basis is not contiguous.
    """

    def __init__(self, params: Parameters, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                state, grad = self.state[param], param.grad
                if not state:
                    state["covariance"] = torch.eye(len(param))
                    state["momentum"] = torch.zeros_like(param)
                state["covariance"].lerp_(grad @ grad.T, 0.1)
                state["basis"] = torch.linalg.eigh(state["covariance"]).eigenvectors
                assert not state["basis"].is_contiguous()
                state["momentum"].mul_(0.9).add_(state["basis"].T @ grad)
                param.sub_(state["basis"] @ state["momentum"], alpha=group["lr"])


def _muon_and_adam(params: Parameters) -> Any:
    return Chain(
        torch.optim.Muon([p for p in params if p.dim() == 2], lr=0.02),
        torch.optim.AdamW([p for p in params if p.dim() != 2], lr=0.01),
    )


def _averaged() -> Program:
    """An average of the weights that the loop keeps and gives to ``extra``."""
    model = net()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(program: Program, _: int) -> torch.Tensor:
        loss = closure_step(program)
        average.update_parameters(model)
        return loss

    return Program(
        model=model,
        optimizer=optimizer,
        loss=squares(model, 4, 8),
        step=step,
        extra=lambda: {"average": dict(average.state_dict())},
        take_extra=lambda extra: average.load_state_dict(extra["average"]) and None,
    )


def _average_beside() -> Program:
    """An average of the weights that is saved as part of the model."""
    both = nn.ModuleDict({"net": net()})
    average: Any = AveragedModel(both["net"])
    both["average"] = average
    optimizer = torch.optim.RAdam(both["net"].parameters(), lr=0.05)

    def step(program: Program, _: int) -> torch.Tensor:
        loss = closure_step(program)
        average.update_parameters(both["net"])
        return loss

    return Program(model=both, optimizer=optimizer, loss=squares(both["net"], 4, 8), step=step)


def _scaled() -> Program:
    """A loop of accelerate, whose optimizer wraps the real one."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
    module = net()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=20)
    model, prepared, scheduler = accelerator.prepare(module, optimizer, schedule)
    loss_of = squares(model, 4, 8)

    def step(program: Program, _: int) -> torch.Tensor:
        for _micro in range(2):
            with accelerator.accumulate(model):
                loss = loss_of()
                accelerator.backward(loss)
                prepared.step()
                scheduler.step()
                prepared.zero_grad()
        return loss

    return Program(model=model, optimizer=prepared, loss=loss_of, step=step, scheduler=scheduler)


def _grad_scaler() -> Program:
    """float16 gradients with a scale that the loop keeps and gives to ``extra``."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    loss_of = squares(model, 4, 8)

    def step(program: Program, _: int) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = loss_of()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Program(
        model=model,
        optimizer=optimizer,
        loss=loss_of,
        step=step,
        extra=lambda: {"scaler": scaler.state_dict()},
        take_extra=lambda extra: scaler.load_state_dict(extra["scaler"]),
    )


_OF_TORCH: dict[str, Callable[[Parameters], Any]] = {
    "adafactor": lambda params: torch.optim.Adafactor(params, lr=0.05),
    "adadelta": lambda params: torch.optim.Adadelta(params),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05, initial_accumulator_value=0.1),
    "adamax": lambda params: torch.optim.Adamax(params, lr=0.05),
    "asgd": lambda params: torch.optim.ASGD(params, lr=0.05, t0=1),
    "nadam": lambda params: torch.optim.NAdam(params, lr=0.05, decoupled_weight_decay=True),
    "rprop": lambda params: torch.optim.Rprop(params, lr=0.05),
    "lbfgs": lambda params: torch.optim.LBFGS(
        params, lr=0.1, max_iter=3, history_size=4, line_search_fn="strong_wolfe"
    ),
}
_OF_TIMM = {
    "adan": "Adan",
    "adopt": "Adopt",
    "kron": "Kron",
    "lamb": "Lamb",
    "lion": "Lion",
    "madgrad": "MADGRAD",
    "mars": "Mars",
    "muon": "Muon",
    "nvnovograd": "NvNovoGrad",
}


def _timm(module: str) -> Callable[[Parameters], Any]:
    def make(params: Parameters) -> Any:
        _compile_nothing()
        return timm_optimizer(module, _OF_TIMM[module])(params, lr=0.02)

    return make


OPTIMIZERS = {
    "lookahead": Thing(build=trained_by(_lookahead), needs=("timm",)),
    "schedule-free": Thing(build=trained_by(_schedule_free), needs=("schedulefree",)),
    "schedule-free wrapper": Thing(
        build=trained_by(_schedule_free_wrapper), needs=("schedulefree",)
    ),
    "muon": Thing(
        build=trained_by(lambda params: torch.optim.Muon(params, lr=0.02), model=matrices)
    ),
    "basis of eigenvectors": Thing(
        build=trained_by(lambda params: Rotated(params, lr=0.02), model=matrices)
    ),
    "muon and adamw in a chain": Thing(build=trained_by(_muon_and_adam)),
    **{
        f"torchao {name}": Thing(
            build=trained_by(low_bit(name), model=large, inputs=64), needs=("torchao",)
        )
        for name in ("AdamW8bit", "AdamW4bit", "AdamWFp8")
    },
    "average in extra": Thing(build=_averaged),
    "average in the model": Thing(build=_average_beside),
    "accelerate": Thing(build=_scaled, needs=("accelerate",)),
    "gradient scaler": Thing(build=_grad_scaler),
    **{
        f"torch {name}": Thing(build=trained_by(make, step=lambda p, _: closure_step(p)))
        for name, make in _OF_TORCH.items()
    },
    **{f"timm {name}": Thing(build=trained_by(_timm(name)), needs=("timm",)) for name in _OF_TIMM},
}
