"""From a plan to evidence: the reference run, then each start of the job in one directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.evidence.evidence import Evidence, Processes
from harness.evidence.read import read_evidence
from harness.evidence.write import write_bytes, write_listing, write_processes, write_trace
from harness.layout.plain import PlainLayout
from harness.plan.make import reference_plan
from harness.plan.model import Plan
from harness.run.errors import HarnessError
from harness.run.server import WarmServer
from harness.run.services import Services
from harness.run.supervise import Supervisor, Watch


def execute(plan: Plan, directory: Path, services: Services) -> Evidence:
    """Carry out the plan in `directory`, which is created, and read back what it left.

    A run whose strikes did not land, or which hung, is the last one: what would follow it proves
    nothing. Raises HarnessError when the workbench itself fails.
    """
    directory = directory.resolve()
    reference = services.reference(
        plan.reference_key(), lambda folder: _run_reference(plan, folder, services.server())
    )
    directory.mkdir(parents=True)
    shutil.copytree(reference, directory / "reference")
    _prepare(plan, directory)
    for number, run in enumerate(plan.runs):
        landed, processes = _run(plan, number, directory, services.server())
        if processes.hung or landed < len(run.strikes):
            break
    return read_evidence(directory)


def _run_reference(plan: Plan, folder: Path, server: WarmServer) -> None:
    """Fill `folder` with the records of the uninterrupted run."""
    work = folder / "work"
    reference = reference_plan(plan)
    work.mkdir()
    _prepare(reference, work)
    _, processes = _run(reference, 0, work, server)
    if any(processes.exits):
        logs = "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
            for path in sorted((work / "run0").glob("rank*.log"))
        )
        raise HarnessError(
            f"the reference run of {plan.name!r} ended with {processes.exits}, it never saves and "
            f"nothing strikes it, so the workload itself is broken:\n{logs}"
        )
    for rank in range(plan.workload.world.size):
        shutil.copy(work / "run0" / f"rank{rank}.jsonl", folder)
    shutil.rmtree(work)


def _prepare(plan: Plan, directory: Path) -> None:
    (directory / "plan.json").write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    (directory / "checkpoints").mkdir()


def _run(plan: Plan, number: int, directory: Path, server: WarmServer) -> tuple[int, Processes]:
    run = plan.runs[number]
    folder = directory / f"run{number}"
    folder.mkdir()
    ranks = plan.workload.world.size
    reads = any(strike.point.phase == "load" for strike in run.strikes)
    link = server.start(directory=directory, run=number, ranks=ranks, reads=reads)
    watch = Watch(
        folder=folder,
        root=directory / "checkpoints",
        ranks=ranks,
        layout=PlainLayout(),
        strikes=run.strikes,
        deadline_s=run.deadline_s,
    )
    supervisor = Supervisor(link, watch)
    processes = supervisor.run()
    trace = supervisor.trace
    write_trace(folder, trace.operations, trace.landed, trace.places, trace.unseen)
    write_bytes(folder, bytes(trace.written))
    write_listing(folder, directory / "checkpoints")
    write_processes(folder, processes)
    return len(trace.landed), processes
