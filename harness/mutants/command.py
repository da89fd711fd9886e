"""`python -m harness mutants`: runs a catalogue of mutants and reports what caught them."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from harness.mutants.catalogue import Bug, Catalogue, load_catalogue, name_of
from harness.mutants.cell import Key, MutantCell, add_cells, read_cells
from harness.mutants.cells import HANG_DEADLINE_S, MutantTask, run_cells
from harness.mutants.choose import (
    candidates,
    correct_keys,
    named_keys,
    participation,
    sample_keys,
)
from harness.mutants.given import Given, default_scenarios, lacking
from harness.mutants.markdown import one_line, page, write_page
from harness.mutants.table import Table, make_table, problems
from harness.plan.model import Implementation
from harness.scenario.devices import count_gpus
from harness.search.pool import Pool
from harness.workspace import open_workspace

_MOST_TRIES = 8
"""Bugs that are tried with a scenario that has caught nothing yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The request on the command line. `sample` is None for the whole table."""

    catalogue: str
    folder: Path
    only: tuple[str, ...]
    sample: int | None
    seed: int
    workers: int
    results: Path | None
    markdown: Path | None


def try_mutants(wish: Wish) -> bool:
    """Runs what is requested and not in the results yet; returns whether nothing is wrong."""
    catalogue = load_catalogue(wish.catalogue, folder=wish.folder)
    found = default_scenarios(wish.folder / "scenarios", gpus=count_gpus())
    given = [one for one in found if lacking(one) is None]
    if wish.only:
        bugs = tuple(bug for bug in catalogue.bugs if name_of(bug.implementation) in wish.only)
        catalogue = replace(catalogue, bugs=bugs)
    run = _Run(wish, catalogue, given)
    run.everything()
    table = make_table(catalogue, run.cells, [one.name for one in given])
    _show(wish, table)
    if wish.only:
        return all(row.is_named for row in table.rows)
    return not any(problems(table))


class _Run:
    """Runs the cells, and collects them as they finish."""

    def __init__(self, wish: Wish, catalogue: Catalogue, given: Sequence[Given]) -> None:
        self._wish, self._catalogue = wish, catalogue
        self._given = {one.name: one for one in given}
        self._bugs: dict[str, Bug] = {bug.implementation: bug for bug in catalogue.bugs}
        self._began = time.monotonic()
        self.cells: dict[Key, MutantCell] = {} if wish.results is None else read_cells(wish.results)

    def everything(self) -> None:
        """Runs the required cells, the sample, and cells that could catch something."""
        wish, catalogue, given = self._wish, self._catalogue, tuple(self._given.values())
        keys = list(named_keys(catalogue))
        if not wish.only:
            keys += correct_keys(participation(catalogue, given))
        if wish.sample != 0:
            keys += sample_keys(catalogue, given, size=wish.sample, seed=wish.seed)
        # A bug whose own scenario cannot run here stays without its cell; the table says so.
        wanted = [
            self._task(key)
            for key in dict.fromkeys(keys)
            if key not in self.cells and key[1] in self._given
        ]
        with tempfile.TemporaryDirectory() as failures:
            workspace = open_workspace(failures=Path(failures))
            with closing(workspace), Pool(workspace, wish.workers, gpus=0) as pool:
                run_cells(pool, wanted, self._note)
                if not wish.only:
                    run_cells(pool, list(self._searches()), self._note)

    def _task(self, key: Key) -> MutantTask:
        manager, scenario = key
        bug = self._bugs.get(manager)
        hangs = bug is not None and bug.outcome == "HANG"
        return MutantTask(
            given=self._given[scenario],
            managers=(self._implementation(manager, scenario),),
            deadline_s=HANG_DEADLINE_S if hangs else None,
        )

    def _searches(self) -> Iterable[MutantTask]:
        table = make_table(self._catalogue, self.cells, list(self._given))
        red = Counter(cell.manager for cell in self.cells.values() if cell.is_caught)
        for name in table.silent:
            if self._catalogue.why_quiet(name) is not None:
                continue
            tried = {cell.manager for cell in table.scenarios[name]}
            names = candidates(self._catalogue, self._given[name], seed=self._wish.seed)
            untried = [one for one in names if one not in tried]
            near, far = untried[: _MOST_TRIES // 2], untried[_MOST_TRIES // 2 :]
            # Then those that show wherever anything does.
            broad = sorted(far, key=lambda one: -red[one])[: _MOST_TRIES // 2]
            managers = tuple(self._implementation(one, name) for one in (*near, *broad))
            yield MutantTask(given=self._given[name], managers=managers, until_caught=True)

    def _implementation(self, manager: str, scenario: str) -> Implementation:
        if manager == Implementation().name:
            return Implementation()
        promises = self._catalogue.promises_of(manager, scenario)
        folder = str(self._wish.folder.resolve())
        return Implementation(name=manager, path=folder, promises=promises)

    def _note(self, done: int, of: int, found: tuple[MutantCell, ...]) -> None:
        self.cells.update({cell.key: cell for cell in found})
        if self._wish.results is not None:
            add_cells(self._wish.results, found)
        if done % 50 == 0 or done == of:
            seconds = time.monotonic() - self._began
            sys.stderr.write(f"{done} of {of} after {seconds:.0f} s\n")


def _show(wish: Wish, table: Table) -> None:
    for line in one_line(table.rows):
        sys.stdout.write(f"{line}\n")
    if not wish.only:
        for problem in problems(table):
            sys.stdout.write(f"- {problem}\n")
        named = sum(row.is_named for row in table.rows)
        sys.stdout.write(
            f"{named} of {len(table.rows)} bugs are caught by the property that names them, "
            f"{len(table.alarms)} false alarms in {len(table.correct)} cells of controls\n"
        )
    if wish.markdown is not None:
        write_page(wish.markdown, page(table, _head(wish)))


def _head(wish: Wish) -> list[str]:
    how = "--full" if wish.sample is None else f"--sample {wish.sample} --seed {wish.seed}"
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    return [
        f"    python -m harness mutants {how} --markdown docs/detection.md",
        "",
        f"{time.strftime('%Y-%m-%d')}, {versions}, Linux {platform.release().partition('-')[0]}.",
    ]
