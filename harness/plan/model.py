"""A plan: everything decided before the first process starts. It has no randomness left."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from harness.faults.actions import Action, Relocate
from harness.faults.strike import Strike
from harness.layouts.base import Layout
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.layouts.unknown import UnknownLayout
from harness.layouts.worded import WordedLayout
from harness.part import Decided
from harness.promises import ALL
from harness.scenario.command import CheckpointNames, CommandJob
from harness.scenario.devices import SHARING
from harness.scenario.launcher import LauncherSettings
from harness.scenario.schema import (
    Accumulation,
    Batching,
    Checkpoint,
    Data,
    Evaluating,
    Expect,
    Filesystem,
    FreezePlan,
    Model,
    Scheduler,
    Wrapping,
)
from harness.words import HOSTS, OPTIMIZERS
from harness.world import World

DEFAULT_JOB = "training"
"""The name of the built-in job."""
COMMAND_JOB = "command"
"""The name of the job that is a command of the user's own."""
PROBED_JOB = "probed"
"""The name of the job that is such a command with a probe."""
CHECKPOINTS = "checkpoints"
"""The name of the checkpoint directory in a run directory, until it is relocated."""
EXECUTED = "executed"
"""The folder of a run directory in which hostile pickles leave their marks."""
LEASED = "gpus.json"
"""The file of a run directory that names the GPUs of the job, if it uses any."""


HANDED_OVER = "handed_over"
"""The folder of a reference with its state after each step."""
BEGINNING = "beginning"
"""The folder of a reference with the state that it begins with."""
GENERATORS = "generators"


def generators_of(rank: int) -> str:
    """Returns the name of the file with the generators of a rank as it went on."""
    return f"{GENERATORS}{rank}.pt"


class Gpus(Decided):
    """The GPUs of a job. `memory` is the fraction of a GPU that each rank can fill.

    `sharing` says how ranks communicate when several of them have one GPU.
    """

    count: int
    memory: float
    sharing: Literal[SHARING]  # type: ignore[valid-type]


class Workload(Decided):
    """The training alone, without checkpoints: it decides the trajectory.

    `gpus` is None on the CPU, and until the machine to run on is known.
    """

    seed: int
    device: Literal["cpu", "cuda"]
    world: World
    model: Model
    optimizer: Literal[OPTIMIZERS]  # type: ignore[valid-type]
    learning_rate: float = 3e-3
    scheduler: Scheduler
    data: Data
    freeze: FreezePlan
    total_steps: int
    accumulate: Accumulation = Accumulation()
    ema: bool = False
    evaluation: Evaluating | None = None
    gpus: Gpus | None = None

    def on_one_node(self) -> Workload:
        """Returns the workload without its network, which does not change how it trains."""
        return self.model_copy(update={"world": self.world.model_copy(update={"nodes": 1})})


class OperatorAction(Decided):
    """An operator's action. `choice` decides what the scenario leaves open."""

    id: str
    action: Action
    choice: int

    @classmethod
    def of(cls, action: Action, name: str, seed: int) -> OperatorAction:
        """Returns the action under this id; the scenario's seed decides what is open."""
        digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=6).digest()
        return cls(id=name, action=action, choice=int.from_bytes(digest, "big"))


class RunPlan(Decided):
    """One start of the job. Settings of the job are None if they are the workload's.

    `deadline_s` is how long the run can be silent; None lets the machine decide when it runs.
    `command` and `nproc` are other words and processes of a command, which has no `until_step`.
    """

    until_step: int = 0
    command: tuple[str, ...] | None = None
    nproc: int | None = None
    load_step: int | None = None
    world: World | None = None
    model: Wrapping | None = None
    freeze: FreezePlan | None = None
    learning_rate: float | None = None
    scheduler: Scheduler | None = None
    data: Batching | None = None
    ignore_freeze_mismatch: bool = False
    before: tuple[OperatorAction, ...] = ()
    refused: str | None = None
    strikes: tuple[Strike, ...] = ()
    host: Literal[HOSTS] = "first"  # type: ignore[valid-type]
    deadline_s: float | None = None


class Implementation(Decided):
    """The checkpoint manager under test: `module:Name`, and a folder to search first.

    `layout` names the layout of its checkpoint directories (`harness.layouts.registry`), and
    `promises` what it can be blamed for (`harness.promises`). Both belong to the code, and not to
    the scenario, because the same scenarios run against any code.
    """

    name: str = "kempnerforge.checkpoint.manager:CheckpointManager"
    path: str | None = None
    layout: str = DEFAULT
    promises: tuple[str, ...] = ALL

    @property
    def code(self) -> dict[str, str | None]:
        """The place from which it is imported, which several implementations can share."""
        return {"module": self.name.partition(":")[0], "path": self.path}

    @property
    def is_foreign(self) -> bool:
        """Whether it is another one than the package beside this harness."""
        return self.path is not None or self.name != Implementation().name


class CommandPlan(Decided):
    """A user's command, and what is known about the files and lines that it leaves."""

    job: CommandJob
    layout: CheckpointNames | None = None
    result: tuple[str, ...] = ()
    step_line: str | None = None

    def key(self) -> str:
        """Identifies what its uninterrupted runs show."""
        text = self.job.model_copy(update={"ranks": None}).model_dump_json()
        text += json.dumps([self.result, self.step_line])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def directory_layout(self) -> Layout:
        """Returns the layout of its checkpoint directory."""
        if self.layout is None:
            return UnknownLayout()
        return WordedLayout(
            checkpoints=self.layout.checkpoints,
            complete=self.layout.complete,
            pointer=self.layout.pointer_name,
        )


class Plan(Decided):
    """A scenario made concrete. `checkpoint` is None for a reference run, which never saves.

    `job` names what runs in the ranks (`harness.jobs.registry`), `command` says more of one that
    the user brings. The first `past` runs took place elsewhere: the plan begins with what they
    left.
    """

    name: str
    source: str
    workload: Workload
    checkpoint: Checkpoint | None
    implementation: Implementation
    runs: tuple[RunPlan, ...]
    expect: Expect
    job: str = DEFAULT_JOB
    command: CommandPlan | None = None
    launcher: LauncherSettings = LauncherSettings()
    mount: Filesystem | None = None
    past: int = 0
    begins_at: int = 0
    """Of a reference: the step whose state another reference hands over to it."""
    hands_over: bool = False
    """Of a reference: whether it writes down its state after each step, for others to go on."""

    @property
    def layout(self) -> Layout:
        """The layout of its checkpoint directory."""
        if self.command is not None:
            return self.command.directory_layout()
        return LAYOUTS[self.implementation.layout]

    @property
    def chosen(self) -> Implementation:
        """The implementation to name on a command line: none if the job is a command."""
        return self.implementation if self.command is None else Implementation()

    def within(self, deadline_s: float) -> Plan:
        """Returns the plan with this silence limit for its runs, whatever the machine would
        decide."""
        runs = (run.model_copy(update={"deadline_s": deadline_s}) for run in self.runs)
        return self.model_copy(update={"runs": tuple(runs)})

    def workload_of(self, run: int) -> Workload:
        """Returns the workload of a run, with the settings that the run changes."""
        own, usual = self.runs[run], self.workload
        found: dict[str, object] = {}
        if own.data is not None:
            found["data"] = own.data.of(usual.data)
        if own.learning_rate is not None:
            found["learning_rate"] = own.learning_rate
        if own.world is not None:
            dealt = usual.data.dealt_to(own.world.degree, before=usual.world.degree)
            found |= {"world": own.world, "data": dealt}
        if own.model is not None:
            found["model"] = own.model.of(usual.model)
        if own.freeze is not None:
            found["freeze"] = own.freeze
        if own.scheduler is not None:
            found["scheduler"] = own.scheduler
        return usual.model_copy(update=found)

    @property
    def rearranges(self) -> bool:
        """Whether some run shards the parameters in another way than the others."""
        worlds = [self.workload.world, *(run.world for run in self.runs if run.world is not None)]
        return any(not worlds[0].same_inside(world) for world in worlds)

    @property
    def changes(self) -> bool:
        """Whether some run trains in another arrangement, or with other settings, than another."""
        return any(self.workload_of(run) != self.workload for run in range(len(self.runs)))

    @property
    def handover_obstacle(self) -> str | None:
        """Why the state of a reference cannot be handed over to another arrangement, if so."""
        used = self.workload
        if used.optimizer not in ("adamw", "sgd"):
            return f"optimizer {used.optimizer}"
        if used.model.variant == "experts":
            return "experts of each rank"
        return "loader without a generator of its own" if used.data.generator != "own" else None

    @property
    def asks_handover(self) -> bool:
        """Whether its runs are compared with references that hand their state over."""
        return self.changes and self.handover_obstacle is None

    def as_second_job(self, run: int) -> Plan:
        """Returns the plan of a second job: no strikes, and it ends with the first error."""
        runs = list(self.runs)
        runs[run] = runs[run].model_copy(update={"strikes": ()})
        ends = self.checkpoint and self.checkpoint.model_copy(update={"on_error": "end"})
        return self.model_copy(update={"runs": tuple(runs), "checkpoint": ends})

    @property
    def filesystem(self) -> str | None:
        """The file system of the checkpoint directory if its power is cut, else None."""
        faults = (strike.fault for run in self.runs for strike in run.strikes)
        return next((fault.disk for fault in faults if fault.disk is not None), None)

    @property
    def in_background(self) -> bool:
        """Whether `save` returns before the checkpoint is durable."""
        return self.checkpoint is not None and self.checkpoint.async_mode != "disabled"

    @property
    def refuses(self) -> bool:
        """Whether saves can fail for good, because the file system lacks a feature."""
        return self.mount is not None and self.mount.refuses

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that mount the checkpoint directory; none if ranks see it directly."""
        hosts = [host for run in range(len(self.runs)) for host in self.hosts_of(run)]
        if "other" in hosts:
            return HOSTS
        return HOSTS[:1] if self.mount is not None else ()

    def hosts_of(self, run: int) -> tuple[str, str]:
        """Returns the host of a run's ranks, and the host of a second job's."""
        own = self.runs[run].host
        joining = (strike.fault.second_host for strike in self.runs[run].strikes)
        return own, next((host for host in joining if host is not None), own)

    @property
    def timeout_s(self) -> float | None:
        """The time after which the manager gives up on an operation, if the scenario sets one."""
        return None if self.checkpoint is None else self.checkpoint.timeout_s

    def folder_of(self, run: int) -> str:
        """Returns the name of a run's checkpoint directory: where the last relocation put it."""
        names = [
            action.action.relocate.to
            for one in self.runs[: run + 1]
            for action in one.before
            if isinstance(action.action, Relocate)
        ]
        return names[-1] if names else CHECKPOINTS

    def reference_key(self) -> str:
        """Identifies the training: one reference run serves all plans with the same key."""
        text = self.workload.on_one_node().model_dump_json() + HANDED_OVER * self.asks_handover
        if self.command is not None:
            return self.command.key()
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
