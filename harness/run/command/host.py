"""A user's command as the job of plans: one server for all its starts in this process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness.evidence.evidence import CommandResult, Processes
from harness.evidence.write import write_processes
from harness.jobs.command.program import Program
from harness.plan.model import CHECKPOINTS, CommandPlan, Plan
from harness.run.command.command import Command, CommandError
from harness.run.command.known import KnownCommand, not_judged, read_known, write_known
from harness.run.command.server import CommandServer, Shown
from harness.run.command.starting import free_port, started
from harness.run.command.uninterrupted import Beginner, Uninterrupted, own_program
from harness.run.launch.local import LocalLaunch
from harness.words import PYTHON_WORD


def run_uninterrupted(plan: CommandPlan, folder: Path, shown: Path) -> None:
    """Run a command without a fault, and write what that shows into `folder`.

    Every start of it sees its directory below `shown`. Raises CommandError if the command cannot be
    tested.
    """
    work = folder / "work"
    work.mkdir()
    with ExitStack() as stack:
        begin = Beginner(_command(plan), work, stack, lambda _: None, shown=shown)
        is_cold = plan.job.start == "cold"
        found = begin.begin(result=plan.result, step_line=plan.step_line, cold=is_cold)
    ranks = plan.job.ranks_of(None)
    if found.starts.ranks != ranks:
        raise CommandError(
            f"it has {found.starts.ranks} ranks, and the scenario says {ranks}: set `job.ranks`, "
            "or `job.nproc` if it has no launcher of its own"
        )
    write_uninterrupted(folder, found)
    shutil.rmtree(work)


def write_uninterrupted(folder: Path, found: Uninterrupted) -> None:
    """Write what the uninterrupted runs of a command have shown."""
    known = KnownCommand(
        programs=found.starts.programs,
        ranks=found.starts.ranks,
        resuming=found.starts.resuming,
        leaked=found.leaked,
        modules=found.modules,
        reference=found.reference,
        steps=found.steps,
    )
    write_known(folder, known)
    write_processes(folder, found.watched.processes)
    for path in found.records.iterdir():
        shutil.copy(path, folder)


def _command(plan: CommandPlan) -> Command:
    return Command(
        words=_with_python(plan.job.command),
        resume=_with_python(plan.job.resume or ()),
        cwd=Path(plan.job.cwd).resolve(),
        environment={**os.environ, **plan.job.env},
        ranks=plan.job.nproc,
    )


def _with_python(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(one.replace(PYTHON_WORD, sys.executable) for one in words)


class CommandHost:
    """One command in this process. `folder` is what `run_uninterrupted` has filled."""

    def __init__(self, plan: CommandPlan, folder: Path, shown: Path, own: Path) -> None:
        self._plan, self._known, self._shown = plan, read_known(folder), shown
        self._folder = folder
        modules = self._known.modules
        first = own_program() if modules is None else self._known.programs[0]
        self._server = CommandServer(first, modules or (), own)
        try:
            self._server.wait_until_ready()
        except BaseException:
            self._server.close()
            raise

    @property
    def directory(self) -> Path:
        """The path of its directory in the words of the command."""
        return self._shown / CHECKPOINTS

    def launched(self, plan: Plan, run: int) -> int:
        """Returns how many ranks of a run a launcher of its own starts; 0 if none does."""
        own, ranks = plan.runs[run], plan.workload_of(run).world.size
        processes = len(self._known.programs)
        if own.command is not None or own.nproc is not None:
            processes = own.nproc or self._plan.job.nproc
        return ranks if processes == 1 < ranks else 0

    def launch(self, plan: Plan, run: int, directory: Path, mounts: str | None) -> LocalLaunch:
        """Start the ranks of a run, whose folder exists in the run directory."""
        port = free_port()
        found = self._programs(plan, run, directory / CHECKPOINTS)
        programs = [started(one, port, directory / f"run{run}") for one in found]
        link = self._server.start(
            directory,
            run,
            programs,
            watched=True,
            shown=Shown(directory, self._shown, mounts),
        )
        return LocalLaunch(link)

    def seen(self, processes: Processes, launched: int) -> Processes:
        """Returns how the processes of a run ended, as far as that is known and due to the run.

        Of ranks with a launcher of their own, the end of the launcher is known; and processes may
        outlive a run if they do so without any fault.
        """
        exits = processes.exits[:1] * launched or processes.exits
        leaked = () if self._known.leaked else processes.leaked
        return replace(processes, exits=exits, leaked=leaked)

    def result(
        self, directory: Path, run: int, processes: Processes, *, fired: bool
    ) -> CommandResult:
        """Returns how what a run left compares with what the uninterrupted command left."""
        log = directory / f"run{run}" / "rank0.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        steps, reference = self._known.steps, self._known.reference
        is_compared = not fired and not any(processes.exits) and not processes.hung
        found = (
            reference.differences(directory / CHECKPOINTS, self._server.read) if is_compared else []
        )
        other = None if steps is None else steps.first_difference(text)
        return CommandResult(
            is_compared=is_compared,
            differences=tuple(map(str, found)),
            first_step=None if steps is None else steps.first(text),
            other_line=None if other is None else other.text,
            not_judged=not_judged(reference, steps, self._known.leaked),
        )

    def copy_reference(self, folder: Path) -> None:
        """Copy what the uninterrupted runs have shown into the folder of a run directory."""
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def _programs(self, plan: Plan, run: int, directory: Path) -> Sequence[Program]:
        """Returns the programs of a run's ranks: executed if its words are its own."""
        own, job, resuming = plan.runs[run], self._plan.job, self._known.resuming
        if own.command is None and own.nproc is None:
            if run and resuming is not None and resuming.can_begin(directory):
                return resuming.programs
            return self._known.programs
        found = {"command": own.command or job.command, "nproc": own.nproc or job.nproc}
        other = self._plan.model_copy(update={"job": job.model_copy(update=found)})
        return _command(other).executed(self.directory)
