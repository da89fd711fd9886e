"""Builds evidence by hand: a job of two ranks and what a correct checkpointer does for it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.disk.tree import FileSystem
from harness.evidence.evidence import (
    WRITTEN,
    AtRest,
    DirectoryEntry,
    Done,
    Evidence,
    Processes,
    RunEvidence,
)
from harness.evidence.operation import Fired, Operation
from harness.evidence.record import (
    Drained,
    Finished,
    Raised,
    Record,
    Resumed,
    SaveBegan,
    SaveReturned,
    StateDigest,
    Stepped,
    keep_word,
)
from harness.evidence.write import write_processes, write_trace
from harness.faults.actions import Action
from harness.faults.strike import Strike
from harness.judge.history import History, replay
from harness.judge.properties.freeze_consistent import canonical, effective
from harness.plan.model import Implementation, OperatorAction, Plan, RunPlan, Workload
from harness.scenario.schema import Checkpoint, Data, Expect, FreezePlan, Model, Scheduler
from harness.world import World
from tests.harness.strikes import strike

RANKS = (0, 1)
MODULES = ("adapter", "transformer", "vision_encoder")
EPOCH_STEPS = 3


class StoredAt:
    """Stands in for DCP's `_StorageInfo`."""

    def __init__(self, relative_path: str, offset: int, length: int) -> None:
        self.relative_path = relative_path
        self.offset = offset
        self.length = length


class Metadata:
    """Stands in for DCP's `Metadata`."""

    def __init__(self, storage_data: dict[str, StoredAt]) -> None:
        self.storage_data = storage_data


def checkpoint_files(step: int, *, pp: int = 1, freeze: object = None) -> dict[str, bytes]:
    """The files of a whole checkpoint, by their path inside of it."""
    shard = b"weights of step %d" % step
    stored = {f"tensor{rank}": StoredAt(f"__{rank}_0.distcp", 0, len(shard)) for rank in RANKS}
    files: dict[str, bytes] = {}
    for stage in range(pp):
        folder = f"pp{stage}/" if pp > 1 else ""
        for rank in RANKS:
            files[f"{folder}__{rank}_0.distcp"] = shard
        files[f"{folder}.metadata"] = pickle.dumps(Metadata(stored))
    files["train_state.pt"] = pickle.dumps({"step": step})
    said: dict[str, object] = {"step": step, "tokens_seen": 8 * step}
    if freeze is not None:
        said["vlm_freeze"] = freeze
    files["metadata.json"] = json.dumps(said).encode()
    return files


def digest(rank: int, step: int, freeze: FreezePlan) -> StateDigest:
    """The state of a rank after a step: a module's parameters tell how often it was trained."""
    params = {}
    for module in MODULES:
        trained = sum(not effective(freeze, one).get(module, False) for one in range(1, step + 1))
        params[f"{module}.weight"] = f"rank {rank} trained {trained}"
    moments = {f"{name}.exp_avg": described for name, described in params.items()} if step else {}
    return StateDigest(params=params, moments=moments, rng={"torch": f"rank {rank} step {step}"})


def stepped(rank: int, step: int, freeze: FreezePlan | None = None) -> Stepped:
    """What the uninterrupted run writes down after a step."""
    plan = freeze or FreezePlan()
    first = (step - 1) % EPOCH_STEPS * 4 + rank * 2
    return Stepped(
        step=step,
        epoch=(step - 1) // EPOCH_STEPS,
        loss=float(100 - step).hex(),
        lr=((0.1 / step).hex(),),
        samples=(first, first + 1),
        frozen=tuple(name for name, frozen in effective(plan, step).items() if frozen),
        trained=3,
        state=digest(rank, step, plan),
        tokens_seen=8 * step,
    )


def resumed(rank: int, step: int | None, freeze: FreezePlan | None = None) -> Resumed:
    """What a rank writes down when it starts."""
    plan = freeze or FreezePlan()
    return Resumed(
        source=None if step is None else f"step_{step}",
        step=step,
        tokens_seen=8 * (step or 0),
        epoch=0,
        kept=None if step is None else keep_word(step, 0),
        state=digest(rank, step or 0, plan),
        frozen=tuple(name for name, frozen in effective(plan, step or 0).items() if frozen),
    )


@dataclass(kw_only=True)
class RunCase:
    """One run, told operation by operation."""

    until_step: int = 6
    load_step: int | None = None
    refused: str | None = None
    own_freeze: FreezePlan | None = None
    before: list[tuple[Action, RunCase]] = field(default_factory=list)
    """What an operator does before the run, told as the operations of a run."""
    freeze: FreezePlan = field(default_factory=FreezePlan)
    strikes: list[Strike] = field(default_factory=list)
    fired: list[Fired] = field(default_factory=list)
    event_logs: list[list[Record]] = field(default_factory=lambda: [[] for _ in RANKS])
    operations: list[Operation] = field(default_factory=list)
    written: bytearray = field(default_factory=bytearray)
    exits: tuple[int, ...] = (0, 0)
    hung: tuple[int, ...] = ()
    leaked: tuple[str, ...] = ()
    stopped: tuple[int, ...] = ()
    after: dict[str, DirectoryEntry] | None = None
    now_s: float = 0.0
    waited_s: float = 0.0
    """How long the processes waited for a processor."""
    saves: int = 0

    def do(self, kind: str, path: str, target: str | None = None, **more: Any) -> None:
        """One operation of rank 0, unless `rank` says otherwise."""
        self.now_s += 0.001
        said = {"rank": 0, "thread": 1, "save": self.saves or None, **more}
        self.operations.append(
            Operation(
                index=len(self.operations),
                time_s=self.now_s,
                kind=kind,
                path=path,
                target=target,
                **said,
            )
        )

    def put(self, path: str, data: bytes, *, sync: bool = True) -> None:
        """Create a file and fill it in two writes."""
        self.do("open", path, creates=True, truncates=True, phase="flush")
        for start in (0, len(data) // 2):
            part = data[start : len(data) // 2] if start == 0 else data[start:]
            place = len(self.written)
            self.written += part
            self.do("write", path, offset=start, size=len(part), data=place, phase="flush")
        if sync:
            self.do("fsync", path, phase="flush")

    def fill(self, folder: str, files: dict[str, bytes], *, sync: bool = True) -> None:
        """Make a directory with files in it."""
        self.do("mkdir", folder, phase="stage")
        inner = sorted({path.rpartition("/")[0] for path in files} - {""})
        for name in inner:
            self.do("mkdir", f"{folder}/{name}", phase="stage")
        for path, data in files.items():
            self.put(f"{folder}/{path}", data, sync=sync)
        for name in (*(f"{folder}/{one}" for one in inner), folder) if sync else ():
            self.do("fsync", name, phase="seal")

    def stage(self, step: int) -> None:
        """Write a whole checkpoint under another name."""
        freeze = canonical(self.freeze, step) or None
        self.fill(f".staging-step_{step}", checkpoint_files(step, freeze=freeze))

    def commit(self, step: int, *, sync: bool = True) -> None:
        """Give a staged checkpoint its name."""
        self.do("rename", f".staging-step_{step}", f"step_{step}", phase="publish")
        if sync:
            self.do("fsync", ".", phase="publish")

    def point(self, step: int, *, sync: bool = True) -> None:
        """Let `latest` name a step."""
        self.do("symlink", ".latest-new", f"step_{step}", phase="publish")
        self.do("rename", ".latest-new", "latest", phase="publish")
        if sync:
            self.do("fsync", ".", phase="publish")

    def prune(self, step: int) -> None:
        """Rename a checkpoint away, then remove it."""
        self.do("rename", f"step_{step}", f".trash-step_{step}", phase="prune")
        self.do("fsync", ".", phase="prune")
        for name in checkpoint_files(step):
            self.do("unlink", f".trash-step_{step}/{name}", phase="prune")
        self.do("rmdir", f".trash-step_{step}", phase="prune")

    def begin(self, step: int) -> None:
        """Every rank calls `save`."""
        self.saves += 1
        self.record(SaveBegan(step=step, ordinal=self.saves, index=len(self.operations)))

    def save(self, step: int, *, prune: int | None = None, described: bool = True) -> None:
        """A save from its call to its return."""
        self.begin(step)
        self.stage(step)
        self.commit(step)
        self.point(step)
        if prune is not None:
            self.prune(prune)
        if described:
            self.record(SaveReturned(step=step, ordinal=self.saves, index=len(self.operations)))

    def record(self, record: Record, ranks: Iterable[int] = RANKS) -> None:
        """Ranks write down the same record."""
        for rank in ranks:
            self.event_logs[rank].append(record)

    def start(self, step: int | None = None) -> None:
        """Every rank resumes from `step`."""
        for rank in RANKS:
            self.event_logs[rank].append(resumed(rank, step, self.freeze))

    def train(self, first: int, last: int) -> None:
        """Every rank trains from step to step."""
        for step in range(first, last + 1):
            for rank in RANKS:
                self.event_logs[rank].append(stepped(rank, step, self.freeze))

    def drain(self) -> None:
        """Every rank waits for its saves."""
        self.record(Drained(call="wait", index=len(self.operations)))

    def finish(self, step: int, threads: tuple[str, ...] = ()) -> None:
        """Every rank ends its loop."""
        self.record(Finished(step=step, reason="until_step", threads=threads))

    def fail(
        self,
        during: str,
        ranks: Iterable[int] = RANKS,
        message: str = "step_2 is torn\nsee the log",
        kind: str = "CheckpointError",
    ) -> None:
        """Ranks raise."""
        said = Raised(
            during=during,
            type=kind,
            message=message,
            trace='Traceback (most recent call last):\n  File "job.py", line 3\n    load()\n'
            "CheckpointError: step_2 is torn\nsee the log\n",
        )
        self.record(said, ranks)
        self.exits = (1, 1)

    def kill(self, ranks: tuple[int, ...] = RANKS, *, fires: bool = True) -> None:
        """SIGKILL after all that was told so far."""
        name = f"run0.kill-{len(self.strikes)}"
        self.strikes.append(
            strike("kill", ranks=ranks, name=name, save=max(self.saves, 1), phase="flush")
        )
        if fires:
            index = len(self.operations)
            self.fired.append(Fired(strike=name, index=index, time_s=self.now_s, ranks=ranks))
            self.exits = tuple(-9 if rank in ranks else 1 for rank in RANKS)


@dataclass(kw_only=True)
class Case:
    """A scenario with its runs; `evidence` completes it."""

    runs: list[RunCase]
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    freeze: FreezePlan = field(default_factory=FreezePlan)
    expect: Expect = field(default_factory=Expect)
    reference: list[list[Record]] = field(default_factory=list)
    executed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for rank in RANKS:
            steps = [stepped(rank, step, self.freeze) for step in range(1, 9)]
            self.reference.append([resumed(rank, None, self.freeze), *steps])

    def evidence(self) -> Evidence:
        """What the harness would have read back."""
        files = FileSystem()
        at_rest: dict[int, AtRest] = {}
        runs: list[RunEvidence] = []
        for number, case in enumerate(self.runs):
            if case.before:
                at_rest[number] = _at_rest(case, files)
            runs.append(_run(case, files))
        return Evidence(
            directory="/runs/example",
            plan=self._plan(),
            reference=tuple(tuple(event_log) for event_log in self.reference),
            runs=tuple(runs),
            at_rest=at_rest,
            executed=self.executed,
        )

    def history(self) -> History:
        """The replay of the evidence."""
        return replay(self.evidence())

    def _plan(self) -> Plan:
        return Plan(
            name="sync: flush: a rank dies (fsdp2)",
            source="scenarios/sync/kill.yaml",
            workload=Workload(
                seed=0,
                device="cpu",
                world=World(dp_shard=2),
                model=Model(),
                optimizer="adamw",
                scheduler=Scheduler(),
                data=Data(),
                freeze=self.freeze,
                total_steps=8,
            ),
            checkpoint=self.checkpoint,
            implementation=Implementation(),
            runs=tuple(
                RunPlan(
                    until_step=one.until_step,
                    load_step=one.load_step,
                    refused=one.refused,
                    freeze=one.own_freeze,
                    before=tuple(
                        OperatorAction(id=_action_name(action, place), action=action, choice=0)
                        for place, (action, _) in enumerate(one.before)
                    ),
                    strikes=tuple(one.strikes),
                    deadline_s=60.0,
                )
                for one in self.runs
            ),
            expect=self.expect,
        )


def _action_name(action: Action, place: int) -> str:
    return f"{place}-{action.word}"


def _at_rest(case: RunCase, files: FileSystem) -> AtRest:
    done: list[Done] = []
    written = bytearray()
    for place, (action, operator) in enumerate(case.before):
        shift = len(written)
        written += operator.written
        operations = tuple(
            one._replace(rank=-1, data=None if one.data is None else one.data + shift)
            for one in operator.operations
        )
        for operation in operations:
            files.apply(operation, bytes(written))
        name = _action_name(action, place)
        done.append(Done(action_id=name, action=action.word, paths=(), operations=operations))
    files.end_run()
    return AtRest(done=tuple(done), written=bytes(written), after=files.snapshot())


def _run(case: RunCase, files: FileSystem) -> RunEvidence:
    written = bytes(case.written)
    for operation in case.operations:
        files.apply(operation, written)
    files.end_run()
    return RunEvidence(
        operations=tuple(case.operations),
        fired=tuple(case.fired),
        unseen=(),
        written=written,
        event_logs=tuple(tuple(event_log) for event_log in case.event_logs),
        processes=Processes(
            exits=case.exits,
            hung=case.hung,
            leaked=case.leaked,
            stopped=case.stopped,
            seconds=1.0 + case.waited_s,
            undelayed_s=1.0,
            deadline_s=20.0,
        ),
        after=files.snapshot() if case.after is None else case.after,
    )


def killed_run(freeze: FreezePlan | None = None) -> RunCase:
    """Saves step 2, and is killed while it stages step 4."""
    run = RunCase(freeze=freeze or FreezePlan())
    run.start()
    run.train(1, 2)
    run.save(2)
    run.train(3, 4)
    run.begin(4)
    run.do("mkdir", ".staging-step_4", phase="stage")
    run.put(".staging-step_4/__0_0.distcp", b"half")
    run.kill()
    return run


def resumed_run(freeze: FreezePlan | None = None) -> RunCase:
    """Resumes from step 2, sweeps what the killed run left, and goes on to step 6."""
    run = RunCase(freeze=freeze or FreezePlan())
    run.start(2)
    run.train(3, 4)
    run.begin(4)
    run.do("unlink", ".staging-step_4/__0_0.distcp", phase="prune")
    run.do("rmdir", ".staging-step_4", phase="prune")
    run.stage(4)
    run.commit(4)
    run.point(4)
    run.record(SaveReturned(step=4, ordinal=1, index=len(run.operations)))
    run.train(5, 6)
    run.save(6, prune=2)
    run.finish(6)
    return run


def correct(*, checkpoint: Checkpoint | None = None, freeze: FreezePlan | None = None) -> Case:
    """Killed in its second save, resumed from its first, and ended in order."""
    plan = freeze or FreezePlan()
    return Case(
        runs=[killed_run(plan), resumed_run(plan)],
        checkpoint=checkpoint or Checkpoint(),
        freeze=plan,
    )


def write_run(directory: Path, case: Case) -> Path:
    """A run directory, as the harness leaves it."""
    evidence = case.evidence()
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "plan.json").write_text(evidence.plan.model_dump_json(), encoding="utf-8")
    _write_event_logs(directory / "reference", evidence.reference)
    for number, run in enumerate(evidence.runs):
        folder = directory / f"run{number}"
        _write_event_logs(folder, run.event_logs)
        places = [[record.index for record in event_log] for event_log in run.event_logs]
        write_trace(folder, run.operations, run.fired, places, run.unseen)
        (folder / WRITTEN).write_bytes(run.written[:])
        write_processes(folder, run.processes)
        after = {name: asdict(entry) for name, entry in run.after.items()}
        (folder / "after.json").write_text(json.dumps(after), encoding="utf-8")
    return directory


def _write_event_logs(folder: Path, event_logs: Iterable[Iterable[Record]]) -> None:
    folder.mkdir()
    for rank, event_log in enumerate(event_logs):
        text = "".join(record.to_line() + "\n" for record in event_log)
        (folder / f"rank{rank}.jsonl").write_text(text, encoding="utf-8")
