"""Hands the exact state of a reference run over to one with other ranks or settings.

A job that goes on in another arrangement, or with other settings, is compared with a reference that
makes the same change. No checkpointer takes part in that: after each step every rank writes down
its pieces of all tensors and their place in the whole, and the ranks of the next reference read
theirs out of these. The position in the data is a number of samples of an epoch. Which random
numbers a rank draws in another arrangement is up to the checkpointer, so they are those with which
the job under test went on.

Out of scope: optimizers that hold others or tensors of other shapes, and rank-local parameters
(`Plan.handover_obstacle`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from harness.jobs.training.build import Rig
from harness.jobs.training.checkpoints import NoCheckpoints, Progress
from harness.jobs.training.companions import Companions
from harness.jobs.training.data import Batches
from harness.jobs.training.digest import buffers_plainly, held_plainly, local, named_plainly
from harness.jobs.training.generators import get_generators, set_generators
from harness.plan.model import BEGINNING, HANDED_OVER, generators_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The part of a tensor that a rank holds, and where in the whole it begins."""

    shape: tuple[int, ...]
    offset: tuple[int, ...]
    part: Tensor

    @property
    def place(self) -> tuple[slice, ...]:
        """Returns the place of the piece in the whole."""
        ends = zip(self.offset, self.part.shape, strict=True)
        return tuple(slice(begin, begin + size) for begin, size in ends)


Pieces = dict[str, Any]
"""By name a piece, or a value that is no tensor."""


class HandsOver(NoCheckpoints):
    """A reference run's: it writes its state after each step, and can begin with another one's."""

    def __init__(self, rig: Rig, directory: Path, *, begins_at: int) -> None:
        self._rig, self._directory, self._begins_at = rig, directory, begins_at
        self._batches: Batches | None = None
        self._samples = 0

    def resume(self, loader: Any) -> Progress:  # noqa: ARG002
        """Take the state that was handed over, if the run begins with one."""
        if not self._begins_at:
            return Progress()
        ranks = sorted((self._directory / BEGINNING).glob("rank*.pt"))
        found = [torch.load(path, weights_only=False) for path in ranks]
        self._rig.rules.apply(self._rig.net, self._begins_at)
        _take(self._rig, found)
        said = found[0]
        self._samples = said["samples"]
        return Progress(
            step=self._begins_at,
            tokens_seen=said["tokens_seen"],
            epoch=said["epoch"],
            beside=Companions.from_extra(said["beside"]),
            source="reference",
        )

    def attach(self, batches: Batches) -> None:
        """Continue after what has been trained on, with the job's random numbers."""
        self._batches = batches
        if self._begins_at:
            batches.go_on(batches.epoch, self._samples // self._rig.place.world.degree)
            kept = self._directory / BEGINNING / generators_of(self._rig.place.rank)
            set_generators(torch.load(kept, weights_only=False))

    def is_due(self, step: int) -> bool:  # noqa: ARG002
        """Returns True: any step can be the one from which a job goes on."""
        return True

    def save(self, progress: Progress) -> None:
        """Write this rank's pieces."""
        folder = self._directory / HANDED_OVER / str(progress.step)
        folder.mkdir(parents=True, exist_ok=True)
        state = {**_state(self._rig, progress), "samples": self._read()}
        torch.save(state, folder / f"rank{self._rig.place.rank}.pt")

    def _read(self) -> int:
        """Returns the samples of the epoch that all ranks have read."""
        assert self._batches is not None, "a loop begins with batches"
        return self._batches.taken * self._rig.place.world.degree


def keep_generators(path: Path) -> None:
    """Write the state of all generators of this rank; a second job leaves those of the first."""
    if not path.exists():
        torch.save(get_generators(), path)


def _state(rig: Rig, progress: Progress) -> dict[str, Any]:
    named = dict(named_plainly(rig.net))
    average = {} if rig.kept.average is None else rig.kept.average.values
    grads = {name: param.grad for name, param in named.items() if param.grad is not None}
    return {
        "params": _pieces(dict(held_plainly(rig.net))),
        "moments": {
            name: _pieces(rig.optimizer.state[param])
            for name, param in named.items()
            if param in rig.optimizer.state
        },
        "average": _pieces(average),
        "gradients": _pieces(grads) if rig.kept.saves_gradients else {},
        "groups": [
            {key: value for key, value in group.items() if key != "params"}
            for group in rig.optimizer.param_groups
        ],
        "schedule": rig.schedule.current.state_dict(),
        "tokens_seen": progress.tokens_seen,
        "epoch": progress.epoch,
        "beside": progress.beside.extra(),
    }


def _pieces(values: Mapping[Any, Any]) -> Pieces:
    return {
        name: _piece(value) if isinstance(value, Tensor) else value
        for name, value in values.items()
    }


def _piece(tensor: Tensor) -> Piece:
    return Piece(
        shape=tuple(tensor.shape), offset=_offset(tensor), part=local(tensor).cpu().clone()
    )


def _offset(tensor: Tensor) -> tuple[int, ...]:
    """Returns where this rank's part of a tensor begins."""
    if not isinstance(tensor, DTensor):
        return (0,) * tensor.dim()
    found = compute_local_shape_and_global_offset(
        tuple(tensor.shape), tensor.device_mesh, tensor.placements
    )
    return tuple(found[1])


@torch.no_grad()
def _take(rig: Rig, found: Sequence[Mapping[str, Any]]) -> None:
    """Give each parameter of this rank, and what belongs to it, its part of the whole tensors."""
    for name, buffer in buffers_plainly(rig.net):
        buffer.copy_(_of(found, "params", name)[0].part)
    for name, param in named_plainly(rig.net):
        local(param).copy_(_cut(_of(found, "params", name), param))
        moments = [one["moments"][name] for one in found if name in one["moments"]]
        for key in moments[0] if moments else ():
            rig.optimizer.state[param][key] = _placed([one[key] for one in moments], param)
        if rig.kept.average is not None:
            rig.kept.average.values[name] = _placed(_of(found, "average", name), param)
        gradients = _of(found, "gradients", name)
        param.grad = _placed(gradients, param) if gradients else None
    for group, saved in zip(rig.optimizer.param_groups, found[0]["groups"], strict=True):
        group.update(saved)
    if (built := rig.schedule.loadable) is not None:
        built.load_state_dict(found[0]["schedule"])


def _of(found: Sequence[Mapping[str, Any]], kind: str, name: str) -> list[Any]:
    return [one[kind][name] for one in found if name in one[kind]]


def _placed(values: Sequence[Any], like: nn.Parameter) -> Any:
    """Returns a value that belongs to a parameter, split as that is."""
    if not isinstance(values[0], Piece):
        return values[0]
    if values[0].shape != tuple(like.shape):
        return values[0].part.to(like.device)
    part = _cut(values, like)
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def _cut(pieces: Sequence[Piece], like: nn.Parameter) -> Tensor:
    """Returns the part of a whole tensor that this rank holds of the parameter."""
    whole = torch.empty(pieces[0].shape, dtype=pieces[0].part.dtype)
    for one in pieces:
        whole[one.place] = one.part
    mine = Piece(shape=tuple(like.shape), offset=_offset(like), part=local(like))
    return whole[mine.place].clone().to(like.device)
