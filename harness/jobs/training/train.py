"""The training loop, as a real framework writes it, and the records of a rank along the way.

In this order: build, including the data loader; resume; then step by step: freeze stages, batch,
forward, backward, clip, optimizer, schedule. After each step comes the evaluation that may be due,
then the save, then the question whether to shut down; at the end the loop waits for what is still
being saved. Under pipeline parallelism all stages of a data-parallel rank read the same samples:
the first needs the inputs, the last the targets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.budget import patient, read_reference
from harness.evidence.record import Finished, Resumed, Stepped
from harness.jobs.training.build import Rig, build_rig, seed_rank
from harness.jobs.training.checkpoints import (
    Checkpoints,
    ManagedCheckpoints,
    NoCheckpoints,
    Progress,
)
from harness.jobs.training.clip import clip_gradients, count_gradients
from harness.jobs.training.data import Batches, as_it_is
from harness.jobs.training.evaluation import Evaluation
from harness.jobs.training.event_log import EventLog
from harness.jobs.training.freeze import freeze_rules, standing_still
from harness.jobs.training.handover import HandsOver, keep_generators
from harness.jobs.training.implementation import Tools
from harness.jobs.training.inputs import prepare
from harness.jobs.training.interrupt import Interruptions
from harness.jobs.training.parallel import Place
from harness.jobs.training.pieces import digest_with_pieces
from harness.jobs.training.variants import VARIANTS
from harness.plan.model import Plan, generators_of

_MAX_GRADIENT_NORM = 1.0
_DECAY_GROWTH = 1.02
_LOADER_THREAD = "QueueFeederThread"
_LOADER_GRACE_S = 30.0


def train(plan: Plan, run: int, directory: Path, *, place: Place, event_log: EventLog) -> Finished:
    """Run one start of the job to its end; returns the record for when the rank is done."""
    workload, settings = plan.workload_of(run), plan.runs[run]
    with event_log.during("build"):
        tools = Tools(plan.implementation)
        seed_rank(workload.seed, place.stream)
        rig = build_rig(
            workload,
            place,
            freeze_rules(workload.freeze, tools),
            event_log=event_log,
            interruptions=Interruptions(settings.strikes, rank=place.rank, event_log=event_log),
        )
        if plan.rearranges:
            digest = partial(digest_with_pieces, rig.net, rig.optimizer, rig.kept.describe)
            rig = replace(rig, digest=digest)
        rig.interruptions.enter("building")
    checkpoints: Checkpoints = NoCheckpoints()
    if plan.hands_over:
        checkpoints = HandsOver(rig, directory, begins_at=plan.begins_at)
    if plan.checkpoint is not None:
        asked, root = patient(plan.checkpoint, read_reference(directory)), plan.folder_of(run)
        checkpoints = ManagedCheckpoints(
            asked,
            directory / root,
            tools=tools,
            rig=rig,
            plan=plan,
            number=run,
        )
    batches = Batches(
        workload.data,
        seed=workload.seed,
        rank=place.data_rank,
        ranks=place.world.degree,
        wrap=_wrapper(plan, tools),
    )
    # A loader that redistributes must exist when a checkpoint is loaded.
    progress = checkpoints.resume(batches.loader if workload.data.redistributes else None)
    batches.begin(progress.epoch)
    checkpoints.attach(batches)
    if plan.checkpoint is not None and plan.asks_handover:
        keep_generators(directory / f"run{run}" / generators_of(place.rank))
    if progress.source is None:
        rig.schedule.begin(0)
    # What a load restored is recorded before a schedule that is built on it changes it.
    _record_resumed(rig, progress)
    rig.schedule.begin(progress.step)
    first_save = plan.checkpoint is not None and plan.checkpoint.dyn_ckpt_window is not None
    if first_save and progress.source is None and checkpoints.is_due(0):
        checkpoints.save(progress)
    loop = Loop(rig, checkpoints, batches, progress, Evaluation(rig, workload))
    return loop.finish(loop.run(settings.until_step))


def _wrapper(plan: Plan, tools: Tools) -> Callable[[Any], Any]:
    """Returns the wrapper of a loader that draws from the global generator, if it is saved."""
    if plan.checkpoint is None or plan.workload.data.generator == "own":
        return as_it_is
    found: Callable[[Any], Any] = tools.find("ResumableDataLoader")
    return found


class Loop:
    """The steps of one run."""

    def __init__(
        self,
        rig: Rig,
        checkpoints: Checkpoints,
        batches: Batches,
        progress: Progress,
        evaluation: Evaluation,
    ) -> None:
        self._rig, self._checkpoints, self._evaluation = rig, checkpoints, evaluation
        self._batches, self._progress = batches, progress

    def run(self, until_step: int) -> str:
        """Train until `until_step` or until a signal; returns which."""
        self._rig.interruptions.enter("training", self._progress.step)
        while self._progress.step < until_step:
            with self._rig.event_log.during("step"):
                self._change_freeze(self._progress.step + 1)
                self._take_step()
                self._rig.interruptions.after_step(self._progress.step)
            self._checkpoints.after_step(self._progress.step)
            if self._evaluation.is_due(self._progress.step, until_step):
                self._evaluation.run(self._progress.step)
            if self._checkpoints.is_due(self._progress.step):
                self._checkpoints.save(self._progress)
            if self._checkpoints.should_stop():
                # Also right after a regular save of this step: a loop asks once, in one place.
                self._checkpoints.save(self._progress)
                return "shutdown"
            self._evaluation.end()
        return "until_step"

    def finish(self, reason: str) -> Finished:
        """Wait for what is still being saved."""
        with self._rig.event_log.during("exit"):
            self._rig.interruptions.enter("ending", self._progress.step)
        self._checkpoints.drain()
        if reason == "shutdown":
            self._checkpoints.stop()
        self._batches.close()
        _end_loader_threads()
        return Finished(step=self._progress.step, reason=reason)

    def _change_freeze(self, step: int) -> None:
        if self._rig.rules.changes_at(step):
            self._checkpoints.before_change()
            self._rig.rules.apply(self._rig.net, step)

    def _take_step(self) -> None:
        rig, progress = self._rig, self._progress
        rates = tuple(float(group["lr"]) for group in rig.optimizer.param_groups)
        VARIANTS[rig.settings.variant].before_step(rig.net, progress.step + 1)
        losses, samples = self._add_up_gradients()
        trained = self._update()
        progress.step += 1
        progress.beside.step(rates[0])
        progress.epoch = self._batches.epoch
        rig.event_log.record(
            Stepped(
                step=progress.step,
                epoch=progress.epoch,
                loss=float(torch.stack(losses).mean()).hex() if losses else None,
                lr=tuple(rate.hex() for rate in rates),
                samples=samples,
                frozen=standing_still(rig.net),
                trained=trained,
                state=rig.digest(),
                tokens_seen=progress.tokens_seen,
                beside=progress.beside.describe(),
            )
        )

    def _add_up_gradients(self) -> tuple[list[Tensor], tuple[int, ...]]:
        """Run the batches of a step forward and backward; returns losses, if any, and samples."""
        rig = self._rig
        losses: list[Tensor] = []
        samples: tuple[int, ...] = ()
        for _ in range(rig.accumulate.in_a_step):
            batch = self._batches.take()
            inputs, targets = prepare(batch, rig.settings, rig.place)
            loss = rig.forward_backward.run(inputs, targets)
            losses += [] if loss is None else [loss]
            samples += batch.ids
            self._progress.tokens_seen += targets.numel() * rig.place.world.degree
        return losses, samples

    def _update(self) -> int:
        """Let the optimizer take complete gradients; returns how many are not zero."""
        rig = self._rig
        if not rig.accumulate.closes(self._progress.step + 1):
            return count_gradients(rig.model)
        trained = clip_gradients(
            rig.model,
            rig.place.everyone,
            max_norm=_MAX_GRADIENT_NORM,
            stage_size=rig.place.world.stage_size,
        )
        rig.optimizer.step()
        rig.schedule.current.step()
        raise_decay(rig.optimizer)
        rig.optimizer.zero_grad(set_to_none=True)
        rig.kept.updated()
        return trained


def raise_decay(optimizer: Optimizer) -> None:
    """Raise the weight decay of each parameter group a little, as schedules of it do.

    Like the learning rate it then differs from what a new optimizer has, so that it must be loaded.
    """
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] *= _DECAY_GROWTH


def _record_resumed(rig: Rig, progress: Progress) -> None:
    rig.event_log.record(
        Resumed(
            source=progress.source,
            step=None if progress.source is None else progress.step,
            tokens_seen=progress.tokens_seen,
            epoch=progress.epoch,
            state=rig.digest(),
            frozen=standing_still(rig.net),
            kept=progress.kept,
            beside=progress.beside.describe(),
        )
    )


def _end_loader_threads() -> None:
    """Wait for the closed loader's threads to end; they are not a checkpointer's leftovers."""
    for thread in threading.enumerate():
        if thread.name.startswith(_LOADER_THREAD):
            thread.join(_LOADER_GRACE_S)
