"""Makes plans and runs their ranks, warm, for the tests of the training job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.evidence.record import Record, Stepped, read_record
from harness.plan.model import Implementation, Plan, RunPlan, Workload
from harness.scenario.schema import (
    Checkpoint,
    Data,
    DynamicWindow,
    Expect,
    Freeze,
    FreezePlan,
    Model,
    ScheduledFreeze,
    Scheduler,
)
from harness.world import World

ROOT = Path(__file__).parents[3]
SIMPLE = Implementation(name="simple_manager:SimpleManager", path=str(ROOT / "tests" / "harness"))
EVERY_SECOND_STEP = Checkpoint(interval=2)
EARLY_STEPS_TOO = Checkpoint(interval=4, dyn_ckpt_window=DynamicWindow(start=0, stop=2))
UNFREEZE_VISION_AT_5 = FreezePlan(
    base=(Freeze(module="vision_encoder"),),
    schedule=(
        ScheduledFreeze(start_step=5, specs=(Freeze(module="vision_encoder", frozen=False),)),
    ),
)

Strike = tuple[int | None, signal.Signals, int]
"""Which rank (None: all), which signal, after which step."""


def make_plan(  # noqa: PLR0913 - each test names the few that it is about
    *until_steps: int,
    world: tuple[int, int] | World = (1, 2),
    model: Model | None = None,
    preset: str = "tiny_transformer",
    workers: int = 0,
    samples: int = 32,
    checkpoint: Checkpoint | None = None,
    freeze: FreezePlan | None = None,
    load_step: int | None = None,
    implementation: Implementation = SIMPLE,
) -> Plan:
    """A plan whose runs end at `until_steps`; a pair as `world` is stages and shards."""
    if not isinstance(world, World):
        world = World(pp=world[0], dp_shard=world[1])
    workload = Workload(
        seed=7,
        device="cpu",
        world=world,
        model=model or Model(preset=preset),  # type: ignore[arg-type]
        optimizer="adamw",
        scheduler=Scheduler(),
        data=Data(samples=samples, num_workers=workers),
        freeze=freeze or FreezePlan(),
        total_steps=max(until_steps),
    )
    runs = [RunPlan(until_step=step, deadline_s=60) for step in until_steps]
    runs[-1] = runs[-1].model_copy(update={"load_step": load_step})
    return Plan(
        name="test",
        source="test",
        workload=workload,
        checkpoint=checkpoint,
        implementation=implementation,
        runs=tuple(runs),
        expect=Expect(),
    )


class Warm:
    """A process that has imported torch, and forks the ranks of one run after another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._answer() == "ready\n"

    def run(
        self, directory: Path, plan: Plan, run: int = 0, *, strike: Strike | None = None
    ) -> list[int]:
        """Run the ranks of one run; returns their exit codes."""
        (directory / "plan.json").write_text(plan.model_dump_json())
        job = {
            "directory": str(directory),
            "run": run,
            "ranks": plan.workload.world.size,
            "strike": strike,
        }
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        codes: list[int] = json.loads(self._answer())
        return codes

    def close(self) -> None:
        """End the process."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def event_logs(directory: Path, plan: Plan, run: int = 0) -> list[list[Record]]:
    """The records of each rank of a run.

    SIGKILL can tear a write at a page's end where no supervisor performs it, so a line without its
    end is left out.
    """
    ranks = range(plan.workload.world.size)
    paths = [directory / f"run{run}" / f"rank{rank}.jsonl" for rank in ranks]
    lines = [path.read_text().splitlines(keepends=True) for path in paths]
    return [[read_record(line) for line in described if line.endswith("\n")] for described in lines]


def steps(event_log: list[Record]) -> dict[int, Stepped]:
    """The training steps of an event log, by number."""
    return {one.step: one for one in event_log if isinstance(one, Stepped)}


def kinds(event_log: list[Record]) -> list[str]:
    """What an event log tells, in order."""
    return [one.kind for one in event_log]


def only(event_log: list[Record], kind: type[Record]) -> Any:
    """The one record of a kind."""
    (found,) = [one for one in event_log if isinstance(one, kind)]
    return found


def without_checkpoints(plan: Plan) -> Plan:
    """The reference of a plan."""
    run = RunPlan(until_step=plan.workload.total_steps, deadline_s=60)
    return plan.model_copy(update={"checkpoint": None, "runs": (run,)})


def differing(one: Stepped, other: Stepped) -> list[str]:
    """Names of what differs between two records of a step."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in one.__slots__}
    state = pairs.pop("state", None) or (one.state, other.state)
    for name in ("params", "moments", "rng"):
        pairs[name] = (getattr(state[0], name), getattr(state[1], name))
    return sorted(name for name, (here, there) in pairs.items() if here != there)
