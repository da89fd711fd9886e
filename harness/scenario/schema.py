"""The scenario language: everything that a YAML file can say, with its defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from harness.faults.actions import Action
from harness.faults.base import expression
from harness.faults.registry import AnyFault
from harness.part import Part
from harness.scenario.command import CheckpointNames, CommandJob
from harness.scenario.exploration import Explore
from harness.scenario.filesystem import Filesystem as Filesystem
from harness.scenario.launcher import AnyLauncher, LauncherSettings
from harness.scenario.training import Accumulation as Accumulation
from harness.scenario.training import Batching as Batching
from harness.scenario.training import Data as Data
from harness.scenario.training import Evaluating as Evaluating
from harness.scenario.training import Model as Model
from harness.scenario.training import Scheduler as Scheduler
from harness.scenario.training import Wrapping as Wrapping
from harness.words import HOSTS, OPTIMIZERS, PROPERTIES
from harness.world import World

PropertyName = Literal[PROPERTIES]  # type: ignore[valid-type]


class DynamicWindow(Part):
    """Saves at `start` and at every `start + 2^k <= stop`, exempt from retention."""

    start: int = Field(0, ge=0)
    stop: int = Field(512, ge=0)


class Checkpoint(Part):
    """Settings of the checkpoint manager."""

    interval: int = Field(2, ge=1, description="training steps between saves")
    keep_last_n: int = Field(2, description="committed checkpoints to keep; 0 or less keeps all")
    async_mode: Literal["disabled", "async", "async_with_pinned_mem"] = "disabled"
    dyn_ckpt_window: DynamicWindow | None = None
    latest: Literal["link", "file"] = Field(
        "link", description="what `latest` is; a file if the file system has no symlinks"
    )
    timeout_s: float | None = Field(
        None, gt=0, description="the manager's own deadline; default: the manager's default"
    )
    on_error: Literal["end", "go_on"] = Field(
        "end", description="what the training loop does when a save raises"
    )
    shares_groups: bool = Field(
        default=False,
        description="training uses the default process group and the one that the manager gets",
    )


ModuleName = Literal["transformer", "vision_encoder", "adapter"]


class Freeze(Part):
    """One module, and whether its parameters are frozen."""

    module: ModuleName
    frozen: bool = True


class ScheduledFreeze(Part):
    """Settings that are added to the earlier ones from `start_step` on."""

    start_step: int = Field(ge=1)
    specs: tuple[Freeze, ...]


class FreezePlan(Part):
    """The frozen modules, and their changes by step."""

    base: tuple[Freeze, ...] = ()
    schedule: tuple[ScheduledFreeze, ...] = ()

    @model_validator(mode="after")
    def _stages_come_in_order(self) -> FreezePlan:
        starts = [stage.start_step for stage in self.schedule]
        if starts != sorted(set(starts)):
            raise ValueError(f"start_step must increase from stage to stage, found {starts}")
        return self


class Run(Part):
    """One start of the job in the same checkpoint directory."""

    until_step: int = Field(
        0, ge=0, description="the last step; left out if the job is a command, which has its own"
    )
    command: tuple[str, ...] | None = Field(
        None, min_length=1, description="other words of a command, as of another version"
    )
    nproc: int | None = Field(None, ge=1, description="another number of processes of a command")
    load_step: int | None = Field(
        None, ge=0, description="load this checkpoint instead of the newest"
    )
    world: World | None = Field(None, description="a new arrangement of the ranks")
    host: Literal[HOSTS] = Field(  # type: ignore[valid-type]
        "first", description="where the ranks live; `other` shares no lock and no cache"
    )
    model: Wrapping | None = Field(None, description="new wrappers around the blocks")
    freeze: FreezePlan | None = Field(None, description="new freeze settings")
    learning_rate: float | None = Field(
        None, gt=0, description="of the optimizer as this run builds it; a load restores the saved"
    )
    scheduler: Scheduler | None = Field(None, description="new settings of the schedule")
    data: Batching | None = Field(None, description="new batch size or number of workers")
    ignore_freeze_mismatch: bool = False
    before: tuple[Action, ...] = Field(
        (), description="what happens to the checkpoint directory before this run starts"
    )
    refused: str | None = Field(
        None,
        min_length=1,
        description="the start must be refused with an error that matches this regular expression",
    )
    faults: tuple[AnyFault, ...] = ()

    @field_validator("refused")
    @classmethod
    def _is_an_expression(cls, refused: str | None) -> str | None:
        return refused and expression(refused)

    @model_validator(mode="after")
    def _is_refused_before_any_fault(self) -> Run:
        if self.refused is not None and self.faults:
            raise ValueError("a run that is refused never reaches the points of its `faults`")
        return self


class Expect(Part):
    """Expectations beyond the properties, and the properties to judge."""

    resumed_from_step: int | tuple[int | None, ...] | None = Field(
        None, description="the step the last run resumed from, or one for each run after the first"
    )
    first_step: int | None = Field(
        None, ge=0, description="no step line of the last run is of an earlier step"
    )
    properties: Literal["all"] | tuple[PropertyName, ...] = "all"


class Scenario(Part):
    """One file: a job, the faults that strike it, and what must still be true."""

    name: str = Field(min_length=1)
    job: CommandJob | None = Field(
        None, description="a training command of your own; default: the built-in job"
    )
    layout: CheckpointNames | None = Field(
        None, description="the names in the directory of a command"
    )
    result: tuple[str, ...] = Field(
        (),
        description="patterns of the files that a command leaves; default: the newest checkpoint",
    )
    step_line: str | None = Field(
        None, description="regular expression of a command's step lines; its group is the step"
    )
    seed: int = 0
    world: World = World()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: Model = Model()
    optimizer: Literal[OPTIMIZERS] = "adamw"  # type: ignore[valid-type]
    learning_rate: float = Field(
        3e-3, gt=0, description="with which the optimizer is built; times 30 for sgd and low_bit"
    )
    accumulate: Accumulation = Accumulation()
    ema: bool = Field(
        default=False, description="the loop averages the weights, and saves that as extra values"
    )
    scheduler: Scheduler = Scheduler()
    data: Data = Data()
    evaluation: Evaluating | None = Field(
        None, description="the loop evaluates on held-out samples; default: it does not"
    )
    checkpoint: Checkpoint = Checkpoint()
    freeze: FreezePlan = FreezePlan()
    launcher: AnyLauncher = LauncherSettings()
    filesystem: Filesystem | None = Field(
        None, description="what the checkpoint directory is mounted from; default: no mount"
    )
    runs: tuple[Run, ...] = Field(min_length=1)
    expect: Expect = Expect()
    explore: Explore | None = None

    def world_of(self, run: Run) -> World:
        """Returns the arrangement of the ranks of a run."""
        if self.job is not None:
            return World(dp_shard=self.job.ranks_of(run.nproc))
        return run.world or self.world
