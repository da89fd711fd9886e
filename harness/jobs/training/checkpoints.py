"""Every call that the training loop makes to the checkpoint manager.

A reference run has `NoCheckpoints`, which builds nothing and calls nothing, so that a save that
changes training shows as a difference between the two.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from harness.evidence.record import Refused, SaveBegan, SaveReturned, keep_word
from harness.jobs.training.build import Rig
from harness.jobs.training.companions import Companions
from harness.jobs.training.data import Batches
from harness.jobs.training.implementation import Tools
from harness.jobs.training.parallel import training_timeout
from harness.jobs.training.starvation import Starvation
from harness.plan.model import Plan
from harness.scenario.schema import Checkpoint

_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that end a loop, whatever they leave."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far training has come. It changes with every step."""

    step: int = 0
    tokens_seen: int = 0
    epoch: int = 0
    kept: str | None = None
    beside: Companions = field(default_factory=Companions)
    source: str | None = None
    """Name of the checkpoint that this run resumed from; None after a fresh start."""


class Checkpoints(Protocol):
    """The training loop's use of checkpoints."""

    def resume(self, loader: Any) -> Progress:
        """Decide where to start, and load it, with the data loader if one is given."""

    def attach(self, batches: Batches) -> None:
        """Give a new data loader the position that was loaded."""

    def after_step(self, step: int) -> None:
        """Note that training has finished a step."""

    def is_due(self, step: int) -> bool:
        """Whether to ask for a checkpoint after `step`."""

    def save(self, progress: Progress) -> None:
        """Save."""

    def before_change(self) -> None:
        """Announce that parts of the model are about to be frozen or unfrozen."""

    def should_stop(self) -> bool:
        """Whether the job was asked to end. Collective."""

    def drain(self) -> None:
        """Wait until every save is durable."""

    def stop(self) -> None:
        """Report that the emergency save is durable."""


class NoCheckpoints:
    """A reference run's: it neither loads nor saves."""

    def resume(self, loader: Any) -> Progress:  # noqa: ARG002
        """Start from the beginning."""
        return Progress()

    def attach(self, batches: Batches) -> None:
        """Do nothing: nothing was loaded."""

    def after_step(self, step: int) -> None:
        """Do nothing."""

    def is_due(self, step: int) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def save(self, progress: Progress) -> None:
        """Do nothing."""

    def before_change(self) -> None:
        """Do nothing: no save can be under way."""

    def should_stop(self) -> bool:
        """Returns False: a reference is never interrupted."""
        return False

    def drain(self) -> None:
        """Do nothing: no save can be under way."""

    def stop(self) -> None:
        """Do nothing: a reference is never interrupted."""


class ManagedCheckpoints:
    """The manager under test, called as a training loop calls it."""

    def __init__(
        self,
        settings: Checkpoint,
        directory: Path,
        *,
        tools: Tools,
        rig: Rig,
        plan: Plan,
        number: int,
    ) -> None:
        self._tools, self._rig, self._number = tools, rig, number
        self._run, self._named = plan.runs[number], plan.layout.name_of
        self._event_log, self._rules = rig.event_log, rig.rules
        self._starvation = Starvation(
            self._run.strikes, rank=rig.place.rank, event_log=rig.event_log
        )
        self._loader: Any = None
        self._saves = 0
        self._goes_on = settings.on_error == "go_on"
        with self._event_log.during("build"):
            self._config = build_config(settings, directory, tools)
            if self._run.ignore_freeze_mismatch:
                self._config.ignore_freeze_mismatch = True
            self._manager = self._starvation.build(lambda: _build_manager(self._config, tools, rig))
            limit = training_timeout(rig.place.world, settings)
            self._shutdown = _build_shutdown(tools.find("ShutdownHandler"), limit)
            self._shutdown.register()

    def resume(self, loader: Any) -> Progress:
        """Load the run's named checkpoint, or the one that the resume rule finds, or nothing."""
        if self._run.refused is None:
            return self._resume(loader)
        before = self._state()
        try:
            return self._resume(loader)
        except Exception:
            after = self._state()
            names = sorted(before.keys() | after.keys())
            changed = tuple(name for name in names if before.get(name) != after.get(name))
            self._event_log.record(Refused(changed=changed))
            raise

    def _state(self) -> dict[str, str]:
        """Returns everything that a load can change, by name."""
        state = self._rig.digest()
        schedule = {}
        if (built := self._rig.schedule.loadable) is not None:
            schedule["schedule"] = repr(built.state_dict())
        return {**state.params, **state.moments, **state.rng, **state.groups, **schedule}

    def _resume(self, loader: Any) -> Progress:
        with self._event_log.during("resume"):
            path = self._choose()
            if path is None:
                return Progress()
            saved_step = self._manager.peek_saved_step(str(path))
            self._rules.apply(self._rig.net, saved_step or 0)
        given: dict[str, Any] = {} if loader is None else {"dataloader": loader}
        meta = self._rules.meta(saved_step or 0)
        if meta is not None:
            given["vlm_freeze_expected"] = meta
        with self._event_log.during("load"):
            self._rig.interruptions.enter("loading")
            step, tokens_seen, extra = self._manager.load(
                path=str(path), scheduler=self._rig.schedule.loadable, **given
            )
            self._rig.kept.take(extra)
        return Progress(
            step=step,
            tokens_seen=tokens_seen,
            epoch=extra.get("epoch", 0),
            kept=extra.get("kept"),
            beside=Companions.from_extra(extra),
            source=path.resolve().name,
        )

    def _choose(self) -> Path | None:
        if self._run.load_step is not None:
            return Path(self._config.dir) / self._named(self._run.load_step)
        found = self._tools.find("resolve_resume_path")(self._config.dir)
        return None if found is None else Path(found)

    def attach(self, batches: Batches) -> None:
        """Give the loader the position that was loaded, and keep it for the saves."""
        self._loader = batches.loader
        with self._event_log.during("apply_dataloader_state"):
            self._manager.apply_dataloader_state(self._loader)

    def after_step(self, step: int) -> None:
        """Hold the manager's threads, or let them run again, if the scenario starves them."""
        self._starvation.after_step(step)

    def is_due(self, step: int) -> bool:
        """Follow the configured interval."""
        return bool(self._config.should_save(step))

    def save(self, progress: Progress) -> None:
        """Call `save` once, between two records."""
        self._saves += 1
        extra: dict[str, Any] = {"epoch": progress.epoch, "kept": self._word(progress.step)}
        extra |= progress.beside.extra() | self._rig.kept.extra()
        meta = self._rules.meta(progress.step)
        if meta is not None:
            extra["vlm_freeze"] = meta
        self._event_log.record(SaveBegan(step=progress.step, ordinal=self._saves))
        with self._going_on("save"), self._event_log.during("save"):
            self._manager.save(
                progress.step,
                tokens_seen=progress.tokens_seen,
                scheduler=self._rig.schedule.current,
                dataloader=self._loader,
                extra=extra,
            )
            self._event_log.record(SaveReturned(step=progress.step, ordinal=self._saves))

    def _word(self, step: int) -> str:
        return keep_word(step, self._number)

    @contextmanager
    def _going_on(self, call: str) -> Iterator[None]:
        """Continue training after a failed save, if the scenario's loop does."""
        try:
            yield
        # torch's CheckpointException, which `dcp.save` raises, is no Exception.
        except BaseException as error:
            if not self._goes_on or isinstance(error, _ENDS):
                raise
            self._event_log.raised_during(call, error)

    def before_change(self) -> None:
        """Let a save under way finish, because it must describe the model as it was."""
        self._starvation.end()
        with self._going_on("flush_pending_save"), self._event_log.draining("flush_pending_save"):
            self._manager.flush_pending_save()

    def should_stop(self) -> bool:
        """Whether a signal asked the job to end."""
        with self._event_log.during("should_shutdown"):
            return bool(self._shutdown.should_shutdown())

    def drain(self) -> None:
        """Wait until every save is durable."""
        self._starvation.end()
        with self._going_on("wait"), self._event_log.draining("wait"):
            self._manager.wait()

    def stop(self) -> None:
        """Report to the shutdown handler that the emergency save is durable."""
        with self._event_log.during("finish"):
            self._shutdown.finish()


def build_config(settings: Checkpoint, directory: Path, tools: Tools) -> Any:
    """Returns the configuration of the manager under test, without what the scenario leaves out."""
    given: dict[str, Any] = {}
    window = settings.dyn_ckpt_window
    if window is not None:
        made = tools.find("DynamicCheckpointWindow")(start=window.start, stop=window.stop)
        given["dyn_ckpt_window"] = made
    if settings.async_mode != "disabled":
        given["async_mode"] = tools.find("AsyncCheckpointMode")(settings.async_mode)
    config = tools.find("CheckpointConfig")(
        dir=str(directory),
        interval=settings.interval,
        keep_last_n=settings.keep_last_n,
        **given,
    )
    if settings.timeout_s is not None:
        config.commit_timeout_s = settings.timeout_s
    if settings.latest != "link":
        config.latest = settings.latest
    return config


def _build_shutdown(handler: Any, limit: timedelta | None) -> Any:
    """Returns the handler, with training's own timeout if there is one and it takes one."""
    if limit is None or "timeout_sec" not in inspect.signature(handler).parameters:
        return handler()
    return handler(timeout_sec=limit.total_seconds())


def _build_manager(config: Any, tools: Tools, rig: Rig) -> Any:
    place = rig.place
    return tools.manager(
        config,
        rig.model,
        rig.optimizer,
        process_group=place.stage_group,
        pp_rank=None if place.stages is None else place.stage,
    )
