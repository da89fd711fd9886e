"""`python -m harness compare A B`: what only one of two versions of an implementation breaks."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from harness.mutants.cell import MutantCell
from harness.mutants.cells import MutantTask, run_cells
from harness.mutants.given import Given, default_scenarios, lacking
from harness.plan.asked import not_promised
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.prove import implementation_words, interpreter
from harness.run.inspecting import ImplementationError
from harness.scenario.devices import count_gpus
from harness.search.pool import Pool
from harness.workspace import open_workspace

Pair = tuple[MutantCell, MutantCell]
"""The results of both versions with one scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The two versions, and how they are named in texts."""

    first: Implementation
    second: Implementation
    names: tuple[str, str]


def versions_of(
    first: str,
    second: str,
    common: Implementation,
    *,
    build: Callable[[Implementation], Implementation],
) -> Versions:
    """Returns two versions of an implementation, each a folder or another `module:Name`.

    `build` starts one, to learn what it promises. Both are judged by what both promise.
    """
    built = [build(_version(text, common)) for text in (first, second)]
    promises = tuple(one for one in built[0].promises if one in built[1].promises)
    both = [one.model_copy(update={"promises": promises}) for one in built]
    return Versions(first=both[0], second=both[1], names=(first, second))


def _version(text: str, common: Implementation) -> Implementation:
    is_folder = Path(text).is_dir()
    changes = {"path": str(Path(text).resolve())} if is_folder else {"name": text}
    if not is_folder and ":" not in text:
        raise ImplementationError(f"{text} is no folder, and no MODULE:NAME")
    return common.model_copy(update=changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionComparison:
    """The results by scenario, and why the others were left out."""

    versions: Versions
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_worse(self) -> bool:
        """Whether the second version breaks something that the first does not."""
        return any(_only(second, first) for first, second in self.pairs.values())


def compare(
    versions: Versions, folder: Path, *, patterns: Sequence[str], workers: int
) -> VersionComparison:
    """Runs the scenarios whose names match a pattern with both versions. Raises ScenarioError."""
    given = [
        one
        for one in default_scenarios(folder / "scenarios", gpus=count_gpus())
        if not patterns or any(fnmatch(one.name, pattern) for pattern in patterns)
    ]
    reasons = {one.name: _left_out(one, versions) for one in given}
    tasks = [
        MutantTask(given=one, managers=(versions.first, versions.second))
        for one in given
        if reasons[one.name] is None
    ]
    pairs: dict[str, Pair] = {}

    def note(done: int, of: int, found: tuple[MutantCell, ...]) -> None:
        first, second = found
        pairs[first.scenario] = (first, second)
        if done % 50 == 0 or done == of:
            sys.stderr.write(f"{done} of {of} scenarios with both\n")

    with tempfile.TemporaryDirectory() as failures:
        workspace = open_workspace(failures=Path(failures))
        with closing(workspace), Pool(workspace, workers, gpus=0) as pool:
            run_cells(pool, tasks, note)
    return VersionComparison(
        versions=versions,
        pairs=dict(sorted(pairs.items())),
        left_out={name: why for name, why in reasons.items() if why is not None},
    )


def _left_out(given: Given, versions: Versions) -> str | None:
    plan = make_plan(given.scenario, source=given.name, implementation=versions.first)
    return not_promised(plan, given.scenario.explore) or lacking(given)


def _breaks(one: MutantCell) -> tuple[str, ...]:
    """Returns what a result breaks; its outcome if it is not green and names nothing."""
    return one.broken or ((one.outcome,) if one.is_alarm else ())


def _only(one: MutantCell, other: MutantCell) -> tuple[str, ...]:
    """Returns what one result breaks and the other does not."""
    return tuple(name for name in _breaks(one) if name not in _breaks(other))


def describe(found: VersionComparison) -> str:
    """Returns what only one version breaks, by property, and how often both agree."""
    first, second = found.versions.names
    lines = [*_side(found, 0), *_side(found, 1)]
    pairs = [(set(_breaks(one)), set(_breaks(other))) for one, other in found.pairs.values()]
    both = sum(bool(one & other) for one, other in pairs)
    neither = sum(not one and not other for one, other in pairs)
    lines.append(
        f"{len(found.pairs)} scenarios with {first} and {second}: {neither} green with both, "
        f"{both} break something with both, {len(found.left_out)} left out"
    )
    lines += [f"  left out: {name}: {why}" for name, why in found.left_out.items()]
    return "\n".join(lines)


def _side(found: VersionComparison, side: int) -> Iterator[str]:
    name = found.versions.names[side]
    by_property: dict[str, list[MutantCell]] = {}
    for pair in found.pairs.values():
        for broken in _only(pair[side], pair[1 - side]):
            by_property.setdefault(broken, []).append(pair[side])
    if not by_property:
        yield f"only {name} breaks: nothing"
        return
    yield f"only {name} breaks:"
    for broken, cells in sorted(by_property.items(), key=lambda one: -len(one[1])):
        yield f"  {broken}: {len(cells)} scenario{'s' if len(cells) > 1 else ''}"
        for cell in cells:
            yield f"    {cell.outcome} {cell.scenario}: {cell.details}"
        yield f"    replay: {_replay(found, side, cells[0].scenario)}"


def _replay(found: VersionComparison, side: int, scenario: str) -> str:
    implementation = (found.versions.first, found.versions.second)[side]
    file, _, label = scenario.partition("::")
    item = f"scenarios/{file}" + (f"::{label}" if label else "")
    words = [interpreter(), "-m", "pytest", item, *implementation_words(implementation)]
    return shlex.join(words)
