"""The interface of a collection of mutants, and how one is found.

The harness knows no collection by itself: a command names one as `module:NAME`, and what it finds
there is a `Catalogue`. Implementations are named as `--implementation` takes them, scenarios as
pytest does, below `scenarios/`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol


class Bug(Protocol):
    """One defect, made in a manager that is right without it."""

    @property
    def implementation(self) -> str:
        """The manager that has it."""

    @property
    def base(self) -> str:
        """The control that it changes."""

    @property
    def source(self) -> str:
        """Numbers of the real bugs that it follows, or empty."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The kinds of bugs that it stands for."""

    @property
    def scenario(self) -> str:
        """The one that has to catch it."""

    @property
    def caught_by(self) -> str:
        """The property or guard that names it."""

    @property
    def outcome(self) -> str:
        """The word for what that scenario comes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A manager that nobody may accuse, but for what it says itself that it cannot do."""

    implementation: str
    leaves_out: Mapping[str, str] = field(default_factory=dict)
    """Reasons by patterns of scenarios."""

    def reason(self, scenario: str) -> str | None:
        """Why it takes no part in a scenario."""
        return next((why for part, why in self.leaves_out.items() if fnmatch(scenario, part)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Bugs, controls, and the scenarios that no bug of these needs."""

    bugs: tuple[Bug, ...]
    correct: tuple[Control, ...]
    quiet: Mapping[str, str] = field(default_factory=dict)
    """Why a scenario stays that catches nothing, by patterns of scenarios."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a category or a real bug has no mutant."""

    def base_of(self, bug: Bug) -> Control:
        """The control of a bug. Raises CatalogueError where there is none."""
        for one in self.correct:
            if one.implementation == bug.base:
                return one
        raise CatalogueError(f"{name_of(bug.implementation)} has no control {bug.base!r}")

    def applies(self, bug: Bug, scenario: str) -> bool:
        """Whether a red verdict would be the bug's doing and not already that of its base."""
        return scenario == bug.scenario or self.base_of(bug).reason(scenario) is None

    def why_quiet(self, scenario: str) -> str | None:
        """Why a scenario may catch nothing."""
        return next((why for part, why in self.quiet.items() if fnmatch(scenario, part)), None)


class CatalogueError(Exception):
    """A name that leads to no catalogue, or a catalogue that contradicts itself."""


def name_of(implementation: str) -> str:
    """The short name of a manager."""
    return implementation.partition(":")[2]


def load_catalogue(place: str, *, folder: Path) -> Catalogue:
    """The catalogue `module:NAME`, looked for in `folder` first. Raises CatalogueError."""
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
