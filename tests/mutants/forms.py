"""Managers that lose state which has another form than that of a plain model and Adam."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from harness.jobs.training.optimizers.packed import unpacked
from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path
from tests.mutants.own_form import OwnForm, ReadsTogether, _inside

_ADAM = ("step", "exp_avg", "exp_avg_sq")


def ResumableDataLoader(loader: Any) -> Any:
    """The loader as it is: what it draws when its epoch is entered again stays drawn."""
    return loader


class DrawsOnceMore(SimpleManager):
    """A resumed run enters its epoch once more; the loader's draw for that is not taken back."""


class ExpertsOfRankZero(OwnForm):
    """Of a parameter that is no distributed tensor, rank 0's values are taken for everybody's."""

    def take_model(self, state: dict[str, Any]) -> None:
        for value in state.values():
            if not isinstance(value, DTensor):
                dist.broadcast(value, src=0)
        super().take_model(state)


class BypassesTheHooks(OwnForm):
    """Values go by their names into parameters, past the hooks of the modules."""

    def take_model(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, param in self._model.named_parameters():
                if name in state:
                    param.copy_(state[name])


class UntiesTheHead(OwnForm):
    """Two names of one parameter come back as two parameters."""

    def take_model(self, state: dict[str, Any]) -> None:
        super().take_model(state)
        for module in self._model.modules():
            head = getattr(module, "head", None)
            if isinstance(head, nn.Linear):
                head.weight = nn.Parameter(head.weight.detach().clone())


class CountsAllParameters(OwnForm):
    """Moments are told apart by their place among all parameters, also those that never train."""

    def take_optimizer(self, state: Any) -> None:
        params = list(self._model.parameters())
        for place, moments in state["state"].items():
            if params[place].requires_grad:
                self._optimizer.state[params[place]] = moments


class AsksTheAttribute(OwnForm):
    """The optimizer's state is what its attribute says; what only `state_dict()` tells is lost."""

    def optimizer_state(self) -> Any:
        params = [one for group in self._optimizer.param_groups for one in group["params"]]
        states = enumerate(self._optimizer.state.get(param) for param in params)
        return {place: state for place, state in states if state}

    def take_optimizer(self, state: Any) -> None:
        params = [one for group in self._optimizer.param_groups for one in group["params"]]
        for place, moments in state.items():
            self._optimizer.state[params[place]] = moments


class ClearsTheLinks(OwnForm):
    """The state of a chain is put into the mapping that it gives, which it makes anew each time."""

    def take_optimizer(self, state: Any) -> None:
        self._optimizer.state.clear()
        for link, saved in zip(self._optimizer.links, state["state"], strict=True):  # type: ignore[attr-defined]
            params = [one for group in link.param_groups for one in group["params"]]
            for place, moments in saved.items():
                self._optimizer.state[params[place]] = moments


class ClearsWhatItDoesNotKnow(OwnForm):
    """Of the state of a parameter only the keys of Adam are saved; a load clears the others."""

    def optimizer_state(self) -> Any:
        state = super().optimizer_state()
        kept = {
            place: {key: one for key, one in moments.items() if key in _ADAM}
            for place, moments in state["state"].items()
        }
        return {**state, "state": kept}


class UnpacksTheMoments(OwnForm):
    """A moment in eight bits is saved as the numbers that it stands for, and stays like that."""

    def apart(self, value: Any) -> Any:
        return super().apart(_unpacked(value))


def _unpacked(value: Any) -> Any:
    if isinstance(value, DTensor):
        local = unpacked(value.to_local())
        mesh, placements = value.device_mesh, value.placements
        return DTensor.from_local(
            local, mesh, placements, run_check=False, shape=value.shape, stride=value.stride()
        )
    return _inside(unpacked(value), _unpacked)


class TensorsOfRankZero(OwnForm):
    """Extra values are rank 0's, also where they are shards."""

    def rank_read(self) -> int:
        return 0


class ForgetsTheGradients(OwnForm):
    """What is added up towards the next update is begun anew."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        step, tokens_seen, extra = super().load(*args, **kwargs)
        return step, tokens_seen, {key: one for key, one in extra.items() if key != "gradients"}


class TakesErrorsForDamage(ReadsTogether):
    """A checkpoint of which a read failed counts as damaged, and the one before it is loaded."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().load(path, *args, **kwargs)
        except RuntimeError:
            found = sorted(simple_manager._committed(self._dir), key=simple_manager._order)
            return super().load(str(found[-2]), *args, **kwargs)


class GivesUpAtOnce(ReadsTogether):
    """A read that failed once ends the start."""
