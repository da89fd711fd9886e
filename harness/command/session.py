"""The whole flow for one command: try it, keep its failures as scenarios, and report."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from harness.command.scenarios import write_scenarios
from harness.command.table import describe, is_green
from harness.command.trying import CommandTest, TryOptions
from harness.plan.model import CommandPlan
from harness.run.command.uninterrupted import Say
from harness.run.services import Services
from harness.scenario.command import CommandJob
from harness.trial import Bench
from harness.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The report on a command, and whether nothing went wrong."""

    text: str
    is_green: bool


def try_command(options: TryOptions, workspace: Workspace, say: Say) -> Tried:
    """Try a command. Raises CommandError if it cannot be tested."""
    plan = _plan(options)
    folder = workspace.new_run("try")
    folder.mkdir()
    try:
        with Services(workspace.shared) as services:
            shown = services.shown(plan)
            test = CommandTest(options, folder, say, shown=shown)
            found = test.run()
            assert test.uninterrupted is not None, "a run begins with it"
            with workspace.on_disk() if test.is_large else nullcontext(workspace) as place:
                bench = Bench(services=services, workspace=place)
                lines = write_scenarios(bench, plan, found, test.uninterrupted)
    finally:
        workspace.drop(folder)
    return Tried(text=describe(found, lines), is_green=is_green(found))


def _plan(options: TryOptions) -> CommandPlan:
    """Returns the command as scenarios name it: it runs where the user is."""
    command = options.command
    job = CommandJob(
        command=command.words,
        nproc=command.ranks,
        start="cold" if options.cold else "warm",
        resume=command.resume or None,
    )
    return CommandPlan(job=job, result=options.result, step_line=options.step_line)
