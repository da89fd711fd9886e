"""`python -m harness conformance`: runs the cases, and makes the page of what came of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from importlib.metadata import Distribution, distributions
from pathlib import Path

from harness.command.trying import CommandReport, CommandTest, TryOptions
from harness.conformance.case import ConformanceCase, ConformanceError, read_cases
from harness.conformance.page import describe_result, page
from harness.conformance.result import CaseRun, read_run, result_of, store
from harness.run.command.command import Command, CommandError
from harness.workspace import open_workspace

ENVIRONMENT = ".venv"
SETUP = "conformance/setup"
RESULTS = "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceWish:
    """The cases to run, by default all, and where the page goes.

    `stored` runs none of them again, and takes the newest results.
    """

    folder: Path
    only: tuple[str, ...] = ()
    stored: bool = False
    budget_s: float | None = None
    markdown: Path | None = None


def run_cases(wish: ConformanceWish, say: Callable[[str], None]) -> bool:
    """Runs the cases; returns whether each shows what is known of it, and nothing else.

    Raises ConformanceError.
    """
    cases = read_cases(wish.folder)
    if unknown := sorted(set(wish.only) - set(cases)):
        raise ConformanceError(f"there is no case {', '.join(unknown)}; found {', '.join(cases)}")
    chosen = {name: cases[name] for name in wish.only or cases if cases[name].command}
    places = {name: wish.folder / RESULTS / f"{name}.json" for name in cases}
    if not wish.stored:
        _run_all(chosen, places, wish, say)
    runs = {name: run for name, place in places.items() if (run := read_run(place)) is not None}
    results = {name: result_of(run, cases[name]) for name, run in runs.items()}
    expected = True
    for name, case in chosen.items():
        result = results.get(name)
        say(f"\n{name}: {'no result' if result is None else describe_result(case, result)}")
        expected = expected and result is not None and result.is_expected(case)
    if wish.markdown is not None:
        wish.markdown.write_text(page(cases, results), encoding="utf-8")
    return expected


def _run_all(
    chosen: Mapping[str, ConformanceCase],
    places: Mapping[str, Path],
    wish: ConformanceWish,
    say: Callable[[str], None],
) -> None:
    environment = Environment(wish.folder / ENVIRONMENT)
    versions = {name: environment.versions(case.packages) for name, case in chosen.items()}
    for name, case in chosen.items():
        say(f"\n== {name}")
        day = date.today().isoformat()
        try:
            report = _try(name, case, environment, wish, say)
        except CommandError as error:
            run = CaseRun(versions=versions[name], day=day, refused=str(error))
        else:
            run = CaseRun(versions=versions[name], day=day, report=report)
        store(run, places[name])


class Environment:
    """The virtual environment of the scripts. Raises ConformanceError if it is not there."""

    def __init__(self, folder: Path) -> None:
        packages = next(iter(folder.glob("lib/python*/site-packages")), None)
        if packages is None:
            raise ConformanceError(f"the scripts' packages are not installed: run {SETUP}")
        self._folder = folder
        self._found: dict[str, Distribution] = {
            one.metadata["Name"].lower().replace("_", "-"): one
            for one in distributions(path=[str(packages)])
        }

    def versions(self, packages: tuple[str, ...]) -> Mapping[str, str]:
        """Returns the installed versions. Raises ConformanceError if one is not there."""
        if missing := [one for one in packages if one not in self._found]:
            raise ConformanceError(f"{', '.join(missing)} is not installed: run {SETUP}")
        return {one: self._found[one].version for one in packages}

    def variables(self, more: Mapping[str, str]) -> dict[str, str]:
        """Returns the variables of a command that runs in it."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = f"{self._folder.resolve() / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return {**kept, "PATH": path, "VIRTUAL_ENV": str(self._folder.resolve()), **more}


def _try(
    name: str,
    case: ConformanceCase,
    environment: Environment,
    wish: ConformanceWish,
    say: Callable[[str], None],
) -> CommandReport:
    workspace = open_workspace(failures=Path("failures").resolve())
    with closing(workspace):
        folder = workspace.new_run(name)
        folder.mkdir()
        try:
            command = Command(
                words=case.command,
                cwd=wish.folder.resolve(),
                environment=environment.variables(case.environment),
            )
            budget_s = wish.budget_s or case.budget_s
            options = TryOptions(command=command, result=case.result, budget_s=budget_s)
            return CommandTest(options, folder, say).run()
        finally:
            workspace.drop(folder)
