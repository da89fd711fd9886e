"""Turns a plan into evidence: the reference run, then each start of the job in one directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from harness.budget import read_reference, silence_s, survivors_s
from harness.evidence.evidence import BEFORE, Evidence, Processes
from harness.evidence.operation import Operation
from harness.evidence.read import read_evidence
from harness.evidence.store import ByteStore
from harness.evidence.write import (
    write_at_rest,
    write_listing,
    write_processes,
    write_result,
    write_trace,
)
from harness.plan.make import reference_plan
from harness.plan.model import CHECKPOINTS, HANDED_OVER, LEASED, CommandPlan, Plan
from harness.plan.place import need_of
from harness.run.at_rest import do_at_rest
from harness.run.backing import Backing, Folder, stand
from harness.run.beginning import Beginning, begin
from harness.run.broker import ResourceLease
from harness.run.changed import add_changed_references, copy_reference
from harness.run.command.host import CommandHost
from harness.run.launch.launch import Launch
from harness.run.launches import launches
from harness.run.services import Services
from harness.run.supervise import Supervisor, Watch
from harness.run.trace import Trace
from harness.system.errors import HarnessError

_IN_BACKGROUND = frozenset({"drained"})
_AT_ONCE = _IN_BACKGROUND | {"save_returned", "raised"}
"""The records after which a rank has no save under way, by whether `save` returns before that."""


def execute(
    plan: Plan, directory: Path, services: Services, beginning: Beginning | None = None
) -> Evidence:
    """Carry out the plan in `directory`, which is created, and read back what it left.

    `beginning` is given if some runs of the plan are past: the first run that is carried out finds
    what they left.

    A run whose strikes did not fire, or which hung, is the last one: a run after it would prove
    nothing. If no deadlines are promised, a job that hangs after a fault is started again. Raises
    HarnessError if the harness itself fails.
    """
    directory = directory.resolve()
    if plan.command is not None:
        return _execute_command(plan, plan.command, directory, services, beginning)
    services.server()  # booted outside of the mounts that belong to one scenario
    plan = services.broker.machine.place(plan)
    with services.broker.lease(need_of(plan)) as lease:

        def produce(key: str, wanted: Plan, files: Mapping[str, Path]) -> Path:
            return services.reference(
                key, lambda folder: _run_reference(wanted, folder, services, lease, files)
            )

        reference = produce(plan.reference_key(), reference_plan(plan), {})
        directory.mkdir(parents=True)
        copy_reference(reference, directory / "reference")
        _prepare(plan, directory, lease)
        with stand(plan, directory) as backing:
            if beginning is not None:
                begin(beginning, directory, disk=plan.filesystem)
            _run_all(plan, directory, services, backing)
        add_changed_references(plan, directory, reference, produce)
    return read_evidence(directory)


def _execute_command(
    plan: Plan,
    command: CommandPlan,
    directory: Path,
    services: Services,
    beginning: Beginning | None,
) -> Evidence:
    """Carry out the plan of a command; see `execute`. Raises CommandError, too."""
    host = services.command(command)  # before any mount of this scenario
    with services.broker.lease(need_of(plan)) as lease:
        (directory / "reference").mkdir(parents=True)
        host.copy_reference(directory / "reference")
        _prepare(plan, directory, lease)
        with stand(plan, directory) as backing:
            if beginning is not None:
                begin(beginning, directory, disk=plan.filesystem)
            _run_all(plan, directory, services, backing, host)
    return read_evidence(directory)


def _run_all(
    plan: Plan,
    directory: Path,
    services: Services,
    backing: Backing,
    command: CommandHost | None = None,
) -> None:
    earlier: list[Operation] = []
    promises = plan.implementation.promises
    mounts, hosts = backing.mounts, backing.hosts
    with launches(plan, directory, services, mounts=mounts, hosts=hosts, command=command) as starts:
        for number, run in list(enumerate(plan.runs))[plan.past :]:
            if not starts.goes_on_to(number) or not _at_rest(plan, number, directory, earlier):
                break
            trace, processes = run_start(
                plan, number, directory, starts.launch(number), backing, command
            )
            fired = {one.strike for one in trace.fired}
            if command is not None:
                result = command.result(directory, number, processes, fired=bool(fired))
                write_result(directory / f"run{number}", result)
            hung = processes.hung and ("deadlines" in promises or not fired)
            if hung or fired < {one.id for one in run.strikes}:
                break
            earlier += trace.operations


def _at_rest(plan: Plan, number: int, directory: Path, earlier: Sequence[Operation]) -> bool:
    """Do the actions before a run; returns whether all of them could be done."""
    folder = directory / f"run{number}"
    folder.mkdir()
    actions = plan.runs[number].before
    if not actions:
        return True
    old = plan.folder_of(number - 1) if number else CHECKPOINTS
    with closing(ByteStore(folder / BEFORE)) as written:
        found = do_at_rest(actions, directory / old, earlier, written, plan.layout)
        written.flush()
    write_at_rest(folder, found)
    return all(one.problem is None for one in found.done)


def _run_reference(
    reference: Plan,
    folder: Path,
    services: Services,
    lease: ResourceLease,
    files: Mapping[str, Path],
) -> None:
    """Fill `folder` with the records of a reference run, which begins with the given files."""
    work = folder / "work"
    (work / "run0").mkdir(parents=True)
    _prepare(reference, work, lease)
    for name, path in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, work / name)
    with launches(reference, work, services) as starts:
        _, processes = run_start(reference, 0, work, starts.launch(0))
    if any(processes.exits):
        logs = "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
            for path in sorted((work / "run0").glob("rank*.log"))
        )
        raise HarnessError(
            f"the reference run ended with {processes.exits}; it never saves and "
            f"nothing strikes it, so the workload itself is broken:\n{logs}"
        )
    for rank in range(reference.workload.world.size):
        shutil.copy(work / "run0" / f"rank{rank}.jsonl", folder)
    if (work / HANDED_OVER).exists():  # not if it begins where it ends
        (work / HANDED_OVER).rename(folder / HANDED_OVER)
    write_processes(folder, processes)
    shutil.rmtree(work)


def _prepare(plan: Plan, directory: Path, lease: ResourceLease) -> None:
    (directory / "plan.json").write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    (directory / CHECKPOINTS).mkdir()
    if lease.gpus:
        (directory / LEASED).write_text(json.dumps(lease.gpus), encoding="utf-8")


def run_start(
    plan: Plan,
    number: int,
    directory: Path,
    launch: Launch,
    backing: Backing | None = None,
    command: CommandHost | None = None,
) -> tuple[Trace, Processes]:
    """Run one start of the job in a prepared run directory, in which the run's folder exists."""
    run = plan.runs[number]
    folder, root = directory / f"run{number}", directory / plan.folder_of(number)
    under = backing or Folder()
    reference = read_reference(directory)
    launched = 0 if command is None else command.launched(plan, number)
    watch = Watch(
        folder=folder,
        root=root,
        called=None if command is None else command.directory,
        launched=launched,
        ranks=plan.workload_of(number).world.size,
        layout=plan.layout,
        strikes=run.strikes,
        deadline_s=silence_s(plan, number, reference),
        survivors_s=survivors_s(plan, reference),
        cut_power=under.cut,
        seed=plan.workload.seed,
        ends_saves=_IN_BACKGROUND if plan.in_background else _AT_ONCE,
        places=tuple(under.hosts[name].place for name in plan.hosts_of(number) if under.hosts),
    )
    supervisor = Supervisor(launch, watch)
    trace = supervisor.trace
    with closing(trace.written) as written:
        processes = supervisor.run()
        if command is not None:
            processes = command.seen(processes, launched)
        under.end_run(trace, folder)
        written.settle()
    unseen = [*trace.unseen, *trace.written.problems]
    write_trace(folder, trace.operations, trace.fired, trace.places, unseen)
    write_listing(folder, root)
    if root.name != CHECKPOINTS:
        write_listing(folder, directory / CHECKPOINTS, name="behind")
    write_processes(folder, processes)
    return trace, processes
