"""A plan: everything decided before the first process starts. It holds no randomness."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.scenario.schema import (
    Checkpoint,
    Data,
    Expect,
    FreezePlan,
    Model,
    Point,
    Scheduler,
    World,
)
from harness.scenario.words import FAULTS


class Decided(BaseModel):
    """Base of every part of a plan: immutable, and written to disk as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Workload(Decided):
    """What is trained, without a word about checkpoints: it decides the trajectory."""

    seed: int
    device: Literal["cpu", "cuda"]
    world: World
    model: Model
    optimizer: Literal["adamw"]
    scheduler: Scheduler
    data: Data
    freeze: FreezePlan
    total_steps: int


class Strike(Decided):
    """A fault at a point. `ranks` are the ranks that it hits; `point.rank` is always set.

    `error` and `times` belong to `fail`; None times means from then on. `seconds` belongs to `stop`
    and `delay`.
    """

    id: str
    fault: Literal[FAULTS]  # type: ignore[valid-type]
    ranks: tuple[int, ...]
    point: Point
    error: str | None = None
    times: int | None = 1
    seconds: float | None = None


class RunPlan(Decided):
    """One start of the job."""

    until_step: int
    load_step: int | None = None
    strikes: tuple[Strike, ...] = ()
    deadline_s: float


class Implementation(Decided):
    """The checkpoint manager under test: `module:Name`, and a folder to look in first."""

    name: str = "kempnerforge.checkpoint.manager:CheckpointManager"
    path: str | None = None


class Plan(Decided):
    """A scenario made concrete. `checkpoint` is None for a reference run, which never saves."""

    name: str
    source: str
    workload: Workload
    checkpoint: Checkpoint | None
    implementation: Implementation
    runs: tuple[RunPlan, ...]
    expect: Expect

    def reference_key(self) -> str:
        """Plans with the same key train alike, so one reference run serves them all."""
        text = self.workload.model_dump_json()
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
