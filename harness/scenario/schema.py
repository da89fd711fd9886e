"""The scenario language: what a YAML file may say, field by field, with its defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from harness.scenario.at_rest import Action, action_of
from harness.scenario.exploration import Explore
from harness.scenario.filesystem import Filesystem as Filesystem
from harness.scenario.launcher import AnyLauncher, Launcher
from harness.scenario.part import Part
from harness.scenario.power import PowerCutting
from harness.scenario.targets import AnyRank as AnyRank
from harness.scenario.targets import (
    Cutting,
    Expiring,
    Joining,
    OneRank,
    Pausing,
    Raising,
    Slowing,
    Stopping,
    Terminating,
    expression,
)
from harness.scenario.targets import Failing as Failing
from harness.scenario.targets import Target as Target
from harness.scenario.targets import Until as Until
from harness.scenario.training import Accumulation as Accumulation
from harness.scenario.training import Data as Data
from harness.scenario.training import Model as Model
from harness.scenario.training import Scheduler as Scheduler
from harness.scenario.training import Wrapping as Wrapping
from harness.scenario.words import FAULTS, HOSTS, LOADING, OPERATIONS, OPTIMIZERS, PHASES
from harness.scenario.world import World as World

PropertyName = Literal[
    "latest_durable",
    "whole_or_absent",
    "nothing_lost",
    "agreement",
    "resume_exact",
    "samples_exactly_once",
    "freeze_consistent",
    "retention",
    "bounded",
    "clean",
    "integrity",
    "no_code_on_load",
]


class DynamicWindow(Part):
    """Saves at `start` and at every `start + 2^k <= stop`, exempt from retention."""

    start: int = Field(0, ge=0)
    stop: int = Field(512, ge=0)


class Checkpoint(Part):
    """What the training loop asks of the checkpoint manager."""

    interval: int = Field(2, ge=1, description="training steps between saves")
    keep_last_n: int = Field(2, description="committed checkpoints to keep; 0 or less keeps all")
    async_mode: Literal["disabled", "async", "async_with_pinned_mem"] = "disabled"
    dyn_ckpt_window: DynamicWindow | None = None
    latest: Literal["link", "file"] = Field(
        "link", description="what `latest` is; a file where the file system has no symlinks"
    )
    timeout_s: float | None = Field(
        None, gt=0, description="the manager's own deadline; default: what the manager has"
    )
    on_error: Literal["end", "go_on"] = Field(
        "end", description="what the training loop does when a save raises"
    )


ModuleName = Literal["transformer", "vision_encoder", "adapter"]


class Freeze(Part):
    """One module and whether its parameters stand still."""

    module: ModuleName
    frozen: bool = True


class FreezeStage(Part):
    """From `start_step` on, these settings come on top of the earlier ones."""

    start_step: int = Field(ge=1)
    specs: tuple[Freeze, ...]


class FreezePlan(Part):
    """What is frozen from the start, and what changes when."""

    base: tuple[Freeze, ...] = ()
    schedule: tuple[FreezeStage, ...] = ()

    @model_validator(mode="after")
    def _stages_come_in_order(self) -> FreezePlan:
        starts = [stage.start_step for stage in self.schedule]
        if starts != sorted(set(starts)):
            raise ValueError(f"start_step must rise from stage to stage, found {starts}")
        return self


class Point(Part):
    """Where a fault strikes: an operation of a save or of the load, or a training step.

    An operation point has `save` (the n-th call of `save` in this run, from 1) and at least one
    of `phase`, `operation` and `path`; or it has `phase: load`, which belongs to no save; or it has
    `operation` or `path` without `save`, and counts through the whole run. A step point has `step`
    alone: the instant after the rank has finished that training step and before
    it decides whether to save.
    """

    rank: int | None = Field(None, ge=0, description="whose operation; default: the rank struck")
    save: int | None = Field(None, ge=1)
    phase: Literal[PHASES] | None = None  # type: ignore[valid-type]
    operation: Literal[OPERATIONS] | None = None  # type: ignore[valid-type]
    path: str | None = Field(None, description="fnmatch pattern below the checkpoint directory")
    nth: int = Field(1, ge=1)
    when: Literal["before", "after"] = "before"
    step: int | None = Field(None, ge=1)
    once_published: bool = Field(
        default=False,
        description="step points: first wait until `latest` names the last save begun",
    )

    @model_validator(mode="after")
    def _is_one_kind_of_point(self) -> Point:
        operation_fields = (self.save, self.phase, self.operation, self.path)
        if self.step is not None and any(field is not None for field in operation_fields):
            raise ValueError("a point is either a `step` or an operation of a `save`, not both")
        if self.phase == "load" and self.save is not None:
            raise ValueError("`phase: load` belongs to no save: leave `save` out")
        if self.phase == "load" and self.operation not in (None, *LOADING):
            raise ValueError(
                f"a load has no `{self.operation}` to strike: its operations are "
                f"{' and '.join(LOADING)}"
            )
        anywhere = self.phase is None and (self.operation or self.path)
        if self.step is None and self.save is None and self.phase != "load" and not anywhere:
            raise ValueError(
                "a point needs `step`, `phase: load`, `operation` or `path` through the whole run, "
                "or `save` with `phase`, `operation` or `path`"
            )
        if self.step is None and not any((self.phase, self.operation, self.path)):
            raise ValueError(
                "an operation point needs `phase`, `operation` or `path` beside `save`"
            )
        if self.once_published and self.step is None:
            raise ValueError("`once_published` belongs to a `step` point")
        return self


class Kill(Part):
    """SIGKILL: no buffer is flushed, no `finally` runs."""

    kill: Target
    at: Point


class PowerCut(Part):
    """The power goes: what was not synced is lost, and no rank does anything more."""

    power_cut: PowerCutting
    at: Point


class Sigterm(Part):
    """SIGTERM, as a cluster scheduler sends it before it takes the machine."""

    sigterm: Terminating
    at: Point


class Stop(Part):
    """SIGSTOP, and SIGCONT some seconds later: a rank that hangs and comes back."""

    stop: Stopping
    at: Point


class OperationFault(Part):
    """Base of the faults that hit one operation of one rank, instead of or around it."""

    at: Point

    @model_validator(mode="after")
    def _hits_an_operation(self) -> OperationFault:
        kind = kind_of(self)
        if self.at.step is not None:
            raise ValueError(f"`{kind}` hits an operation: its point has `save`, not `step`")
        if self.at.when == "after":
            raise ValueError(f"`{kind}` hits the operation itself: `when: after` is too late")
        if self.at.rank not in (None, getattr(self, kind).rank):
            raise ValueError(f"`{kind}` hits the rank at the point: leave `at.rank` out")
        return self


class Fail(OperationFault):
    """The storage answers an error: once, several times, or from then on."""

    fail: Failing


class ShortWrite(OperationFault):
    """A write takes only the first half of its bytes and says so."""

    short_write: OneRank

    @model_validator(mode="after")
    def _hits_a_write(self) -> ShortWrite:
        if self.at.operation != "write":
            raise ValueError("`short_write` needs `operation: write` in its point")
        return self


class Delay(OperationFault):
    """One operation takes long; other ranks and threads go on."""

    delay: Pausing


class Hang(OperationFault):
    """One operation never returns; only SIGKILL ends the thread that waits for it."""

    hang: OneRank


class LoopFault(Part):
    """Base of the faults that a rank carries out itself when it has finished a step."""

    at: Point

    @model_validator(mode="after")
    def _falls_in_the_loop(self) -> LoopFault:
        kind = kind_of(self)
        if self.at.step is None or self.at.once_published:
            raise ValueError(f"`{kind}` falls in the training loop: its point has `step` alone")
        if self.at.rank is not None:
            raise ValueError(f"`{kind}` falls in the rank that it hits: leave `at.rank` out")
        return self


class Raise(LoopFault):
    """An exception that nobody catches: the interpreter of that rank shows it and ends."""

    at: Point
    # `raise` is a word of Python, so it cannot be annotated as the others are.
    __annotations__["raise"] = Raising.__name__


class Exit(LoopFault):
    """`sys.exit()`: the interpreter ends in order, whatever is still under way."""

    exit: Target


class SecondJob(Part):
    """The job is started once more on the same directory, while the first one is alive."""

    second_job: Joining
    at: Point

    @model_validator(mode="after")
    def _holds_one_rank_up(self) -> SecondJob:
        if self.at.rank not in (None, self.second_job.rank) or self.at.once_published:
            raise ValueError("`second_job` holds the rank at the point up: `at` is a point of it")
        if self.at.when == "after":
            raise ValueError("`second_job` holds an operation up: `when: after` is too late")
        return self


class ByHand(Part):
    """A hand from outside changes the directory at a point, before the job does anything else."""

    by_hand: Action
    at: Point

    @model_validator(mode="after")
    def _can_happen_to_a_live_job(self) -> ByHand:
        action = action_of(self.by_hand)
        if action in ("leftover", "relocate"):
            raise ValueError(f"`{action}` is for the time between two runs")
        return self


class CutLink(Part):
    """One node does not reach the others any more; the checkpoint directory it does."""

    cut_link: Cutting
    at: Point


class SlowLink(Part):
    """The way to one node carries less from then on."""

    slow_link: Slowing
    at: Point


class TimeLimit(Part):
    """SLURM's time limit comes near: its signal reaches every rank, and it starts the job again."""

    time_limit: Expiring
    at: Point

    @model_validator(mode="after")
    def _comes_after_a_step(self) -> TimeLimit:
        if self.at.step is None or self.at.once_published:
            raise ValueError("`time_limit` comes after a training step: its point has `step` alone")
        return self


AnyFault = (
    Kill
    | PowerCut
    | Sigterm
    | Stop
    | Fail
    | ShortWrite
    | Delay
    | Hang
    | Raise
    | Exit
    | SecondJob
    | ByHand
    | CutLink
    | SlowLink
    | TimeLimit
)


def kind_of(fault: Part) -> str:
    """The word of a fault, as files spell it."""
    return next(kind for kind in FAULTS if kind in type(fault).model_fields)


def _one_fault(value: Any) -> Any:
    if isinstance(value, dict) and len(value.keys() & set(FAULTS)) > 1:
        raise ValueError(f"one entry of `faults` holds one fault: {' or '.join(FAULTS)}")
    return value


def _tag(value: Any) -> str | None:
    """The tag of the union below; no key of a file looks like one, so no error is misplaced."""
    if isinstance(value, Part):
        return f"<{kind_of(value)}>"
    named = [fault for fault in FAULTS if isinstance(value, dict) and fault in value]
    return f"<{named[0]}>" if named else None


Fault = Annotated[
    Annotated[
        Annotated[Kill, Tag("<kill>")]
        | Annotated[PowerCut, Tag("<power_cut>")]
        | Annotated[Sigterm, Tag("<sigterm>")]
        | Annotated[Stop, Tag("<stop>")]
        | Annotated[Fail, Tag("<fail>")]
        | Annotated[ShortWrite, Tag("<short_write>")]
        | Annotated[Delay, Tag("<delay>")]
        | Annotated[Hang, Tag("<hang>")]
        | Annotated[Raise, Tag("<raise>")]
        | Annotated[Exit, Tag("<exit>")]
        | Annotated[SecondJob, Tag("<second_job>")]
        | Annotated[ByHand, Tag("<by_hand>")]
        | Annotated[CutLink, Tag("<cut_link>")]
        | Annotated[SlowLink, Tag("<slow_link>")]
        | Annotated[TimeLimit, Tag("<time_limit>")],
        Discriminator(
            _tag,
            custom_error_type="unknown_fault",
            custom_error_message="an entry of `faults` names a fault",
        ),
    ],
    BeforeValidator(_one_fault),
]


class Run(Part):
    """One start of the job in the same checkpoint directory."""

    until_step: int = Field(ge=1)
    load_step: int | None = Field(
        None, ge=0, description="start from this checkpoint by name instead of the newest"
    )
    world: World | None = Field(None, description="another arrangement of the ranks than before")
    host: Literal[HOSTS] = Field(  # type: ignore[valid-type]
        "first", description="where the ranks live; `other` shares no lock and no cache"
    )
    model: Wrapping | None = Field(None, description="other wrappers of the blocks than before")
    freeze: FreezePlan | None = Field(None, description="other freeze settings than before")
    ignore_freeze_mismatch: bool = False
    before: tuple[Action, ...] = Field(
        (), description="what happens to the checkpoint directory before this run starts"
    )
    refused: str | None = Field(
        None,
        min_length=1,
        description="the start has to be refused with an error that fits this regular expression",
    )
    faults: tuple[Fault, ...] = ()

    @field_validator("refused")
    @classmethod
    def _is_an_expression(cls, refused: str | None) -> str | None:
        return refused and expression(refused)

    @model_validator(mode="after")
    def _is_refused_before_any_fault(self) -> Run:
        if self.refused is not None and self.faults:
            raise ValueError("a run that is refused never comes to the points of its `faults`")
        return self


class Expect(Part):
    """What must be true beyond the properties, and which properties are judged."""

    resumed_from_step: int | tuple[int | None, ...] | None = Field(
        None, description="the step the last run resumed from, or one for each run after the first"
    )
    properties: Literal["all"] | tuple[PropertyName, ...] = "all"


class Scenario(Part):
    """One file: a job, what strikes it, and what must still be true."""

    name: str = Field(min_length=1)
    seed: int = 0
    world: World = World()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: Model = Model()
    optimizer: Literal[OPTIMIZERS] = "adamw"  # type: ignore[valid-type]
    accumulate: Accumulation = Accumulation()
    ema: bool = Field(
        default=False, description="the loop averages the weights, and saves that as extra values"
    )
    scheduler: Scheduler = Scheduler()
    data: Data = Data()
    checkpoint: Checkpoint = Checkpoint()
    freeze: FreezePlan = FreezePlan()
    launcher: AnyLauncher = Launcher()
    filesystem: Filesystem | None = Field(
        None, description="what the checkpoint directory is mounted from; default: no mount"
    )
    runs: tuple[Run, ...] = Field(min_length=1)
    expect: Expect = Expect()
    explore: Explore | None = None
