"""The references of runs in another arrangement of ranks, or with other settings.

Each makes the same change, from the state that the reference of the earlier run had at the step
from which the run resumed. Runs that go on as the one before share its reference. A run that
begins afresh has one that does.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from harness.evidence.descent import parent_of, starts_of
from harness.evidence.evidence import Evidence, changed_folder
from harness.evidence.read import read_evidence
from harness.plan.make import changed_reference_plan
from harness.plan.model import BEGINNING, GENERATORS, HANDED_OVER, Plan, generators_of


class Produce(Protocol):
    """Returns the folder of the reference with a key; it is run on first use."""

    def __call__(self, key: str, wanted: Plan, files: Mapping[str, Path]) -> Path: ...


def add_changed_references(plan: Plan, directory: Path, reference: Path, produce: Produce) -> None:
    """Put the references of changed runs into the run directory, as far as there can be any."""
    if not plan.asks_handover:
        return
    evidence = read_evidence(directory)
    known: list[Path | None] = []
    for number in range(len(evidence.runs)):
        known.append(_reference_of(evidence, number, directory, [*known, reference], produce))
        found = known[-1]
        if found is not None and found != reference:
            copy_reference(found, directory / changed_folder(number))


def copy_reference(reference: Path, to: Path) -> None:
    """Copy what a reference recorded, without the states that it hands over."""
    shutil.copytree(reference, to, ignore=shutil.ignore_patterns(HANDED_OVER))


def _reference_of(
    evidence: Evidence,
    number: int,
    directory: Path,
    known: list[Path | None],
    produce: Produce,
) -> Path | None:
    """Returns the reference of a run; `known` has those of earlier runs, then the usual one."""
    plan, usual = evidence.plan, known[-1]
    parent, steps = parent_of(evidence, number), starts_of(evidence.runs[number])
    if plan.workload_of(number) == plan.workload and (parent is None or len(steps) != 1):
        return usual
    if steps == {None}:
        wanted = changed_reference_plan(plan, number, 0)
        return produce(_key("", wanted, {}), wanted, {})
    if parent is None or len(steps) != 1:
        return None
    theirs = known[parent]
    if theirs is None or plan.workload_of(number) == plan.workload_of(parent):
        return theirs
    (step,) = steps
    wanted = changed_reference_plan(plan, number, step or 0)
    files = _beginning(plan, number, directory, theirs / HANDED_OVER / str(step))
    return produce(_key(theirs.name, wanted, files), wanted, files) if files else None


def _beginning(plan: Plan, number: int, directory: Path, state: Path) -> dict[str, Path]:
    """Returns the files that the reference begins with; none if a rank did not get as far."""
    ranks = range(plan.workload_of(number).world.size)
    generators = [directory / f"run{number}" / generators_of(rank) for rank in ranks]
    if not state.is_dir() or not all(path.exists() for path in generators):
        return {}
    return {f"{BEGINNING}/{path.name}": path for path in (*sorted(state.iterdir()), *generators)}


def _key(earlier: str, wanted: Plan, files: Mapping[str, Path]) -> str:
    # The earlier reference and the step decide the state; only the generators are the job's own.
    digest = hashlib.blake2b(f"{earlier} {wanted.model_dump_json()}".encode(), digest_size=12)
    for path in files.values():
        if path.name.startswith(GENERATORS):
            digest.update(path.read_bytes())
    return digest.hexdigest()
