"""Chooses what a power cut may have kept at one instant: all choices if they are few, else some."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from harness.disk.changes import DataChange, Version
from harness.disk.disk import Disk, JournalEntry
from harness.disk.profiles import Profile
from harness.disk.state import SurvivingChanges

Versions = Mapping[int, Version]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The possible states at one instant. `complete` says whether these are all of the model's."""

    found: tuple[SurvivingChanges, ...]
    complete: bool


def choose(
    disk: Disk, profile: Profile, newest: JournalEntry | None, chance: Random, most: int
) -> Choices:
    """Returns the choices at this instant, or `most` of them if there are more.

    A state without the newest change of names existed one instant earlier; it is left out if
    `newest` is given.
    """
    reachable = disk.reachable()
    serial = None if newest is None or isinstance(newest, DataChange) else newest.serial
    relevant = [one for one in disk.journal if _shows(one, reachable)]
    hidden = frozenset(one.serial for one in disk.journal) - {one.serial for one in relevant}
    if serial in hidden:
        serial = None
    subsets, complete = profile.subsets(relevant, serial, chance, most // 4)
    found: list[SurvivingChanges] = []
    for kept in subsets:
        whole = kept | hidden
        options = [
            profile.versions(log, whole, disk.journal)
            for number, log in disk.dirty.items()
            if number in reachable
        ]
        room = most if kept is subsets[0] else max(4, most // len(subsets))
        combined, all_there = _combine(options, chance, room)
        complete = complete and all_there
        found += [SurvivingChanges(kept=whole, versions=one) for one in combined]
    return Choices(found=tuple(found[: 2 * most]), complete=complete and len(found) <= 2 * most)


def everything(disk: Disk) -> SurvivingChanges:
    """Returns the choice that loses nothing: what the next process sees after a kill."""
    return SurvivingChanges(kept=frozenset(one.serial for one in disk.journal), versions={})


def _shows(change: JournalEntry, reachable: set[int]) -> bool:
    if isinstance(change, DataChange):
        return True
    return any(edit.directory.number in reachable for edit in change.edits)


def _combine(
    options: list[tuple[Version, ...]], chance: Random, most: int
) -> tuple[Iterable[Versions], bool]:
    """Yields combinations of what each file may hold, the most complete first."""
    total = 1
    for one in options:
        total *= len(one)
    if total <= most:
        return [_named(one) for one in itertools.product(*options)], True
    whole = tuple(one[0] for one in options)
    found: dict[tuple[Version, ...], None] = {whole: None}
    found[tuple(one[min(1, len(one) - 1)] for one in options)] = None
    for place, versions in enumerate(options):
        for version in versions[1:]:
            found[(*whole[:place], version, *whole[place + 1 :])] = None
    tries = itertools.repeat(None, 4 * most)
    for _ in itertools.takewhile(lambda _: len(found) < most, tries):
        found[tuple(chance.choice(one) for one in options)] = None
    return [_named(one) for one in itertools.islice(found, most)], False


def _named(versions: tuple[Version, ...]) -> Versions:
    return {version.file: version for version in versions}
