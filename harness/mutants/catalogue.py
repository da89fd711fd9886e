"""The interface of a collection of mutants, and how one is found.

The harness itself knows no collection: a command names one as `module:NAME`, which must be a
`Catalogue`. Implementations are named as for `--implementation`, scenarios as for pytest, below
`scenarios/`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from harness.promises import ALL


class Bug(Protocol):
    """One defect, made in a manager that is right without it."""

    @property
    def implementation(self) -> str:
        """The manager that has the bug."""

    @property
    def base(self) -> str:
        """The control that it changes."""

    @property
    def source(self) -> str:
        """Numbers of the real bugs that it follows, or empty."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The kinds of bugs that it represents."""

    @property
    def scenario(self) -> str:
        """The scenario that must catch it."""

    @property
    def caught_by(self) -> str:
        """The property or guard that names it."""

    @property
    def outcome(self) -> str:
        """The outcome of that scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A correct manager: no scenario may accuse it, except of what it says it leaves out.

    `promises` are its own and those of the mutants that are made of it (`harness.promises`).
    """

    implementation: str
    promises: tuple[str, ...] = ALL
    leaves_out: Mapping[str, str] = field(default_factory=dict)
    """Reasons for what no promise expresses, by pattern of scenarios."""

    def reason(self, scenario: str) -> str | None:
        """Returns why it is left out of a scenario, or None."""
        return next((why for part, why in self.leaves_out.items() if fnmatch(scenario, part)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Bugs, controls, and the scenarios that catch none of these bugs."""

    bugs: tuple[Bug, ...]
    correct: tuple[Control, ...]
    quiet: Mapping[str, str] = field(default_factory=dict)
    """Why a scenario that catches nothing is kept, by pattern of scenarios."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a category or a real bug has no mutant."""

    def base_of(self, bug: Bug) -> Control:
        """Returns the control of a bug. Raises CatalogueError if there is none."""
        for one in self.correct:
            if one.implementation == bug.base:
                return one
        raise CatalogueError(f"{name_of(bug.implementation)} has no control {bug.base!r}")

    def promises_of(self, implementation: str, scenario: str) -> tuple[str, ...]:
        """Returns what a manager is judged by: all in a mutant's own scenario, else its base's."""
        for bug in self.bugs:
            if bug.implementation == implementation:
                return ALL if bug.scenario == scenario else self.base_of(bug).promises
        controls = {one.implementation: one.promises for one in self.correct}
        return controls.get(implementation, ALL)

    def why_quiet(self, scenario: str) -> str | None:
        """Returns why a scenario is allowed to catch nothing, or None."""
        return next((why for part, why in self.quiet.items() if fnmatch(scenario, part)), None)


class CatalogueError(Exception):
    """A name that refers to no catalogue, or a catalogue that contradicts itself."""


def name_of(implementation: str) -> str:
    """Returns the short name of a manager."""
    return implementation.partition(":")[2]


def load_catalogue(place: str, *, folder: Path) -> Catalogue:
    """Returns the catalogue `module:NAME`, searched in `folder` first. Raises CatalogueError."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise CatalogueError(f"a catalogue is named `module:NAME`, found {place!r}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CatalogueError(f"{place}: {error}") from None
    if not isinstance(found, Catalogue):
        raise CatalogueError(f"{place} is a {type(found).__name__}, not a Catalogue")
    return found
