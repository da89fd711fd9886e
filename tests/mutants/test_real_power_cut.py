"""A hit is a candidate until a real file system shows it: the power of an ext4 is cut there."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from benchmarks.crash_states import flatten
from benchmarks.naive_states import Tree
from harness.crash.choose import choose
from harness.crash.disk import Disk
from harness.crash.explore import explore
from harness.crash.profiles import PROFILES
from harness.crash.state import Parts
from harness.evidence.evidence import Evidence
from harness.run.repeat import leave
from harness.run.services import Services
from harness.run.support import missing_disk
from harness.scenario.schema import Checkpoint
from harness.world import World
from tests.mutants.test_ordering import run_job


@pytest.fixture(autouse=True)
def needs_an_image() -> None:
    reason = missing_disk("ext4")
    if reason is not None:
        pytest.skip(reason)


def left_by(evidence: Evidence, operations: int, folder: Path, *, journal: str = "lost") -> Tree:
    """What an ext4 holds after a power cut behind so many operations of the first run."""
    run = evidence.runs[0]
    runs = [(run.operations[:operations], run.written)]
    listing = leave(runs, filesystem="ext4", journal=journal, base=folder)
    found: Tree = {}
    for path, kind, detail in listing.entries:
        if isinstance(detail, tuple):
            found[path] = listing.written[detail[0] : sum(detail)]
        else:
            found[path] = None if kind == "directory" else str(detail)
    return found


def size(tree: Tree, path: str) -> int:
    """The size of a file below what `latest` names, or below a checkpoint."""
    top, _, inner = path.partition("/")
    folder = tree["latest"] if top == "latest" else top
    assert isinstance(folder, str)
    data = tree[f"{folder}/{inner}"]
    assert isinstance(data, bytes)
    return len(data)


def test_a_shard_without_a_sync_is_empty_behind_latest(services: Services, tmp_path: Path) -> None:
    manager = "tests.mutants.ordering:ForgetsOneShard"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))
    found = explore(evidence, profile="ordered", most=16)
    hit = next(one for one in found.hits if one.cause.fault.property == "latest_durable")
    swap = hit.cause.operations[-1][1]
    run = evidence.runs[0]
    synced = next(
        one.index for one in run.operations[swap:] if one.kind == "fsync" and one.path == "."
    )

    left = left_by(evidence, synced + 1, tmp_path)

    assert left["latest"] == "step_2"
    assert size(left, "latest/__0_0.distcp") == 0
    assert size(left, "latest/__1_0.distcp") > 0


def test_a_swap_without_a_sync_is_not_there(services: Services, tmp_path: Path) -> None:
    manager = "tests.mutants.ordering:ForgetsTheLastSync"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))

    left = left_by(evidence, len(evidence.runs[0].operations), tmp_path)

    assert left["latest"] == "step_2"
    assert size(left, "step_4/metadata.json") > 0


def test_names_without_a_sync_of_their_directory_are_kept_by_the_journal(
    services: Services, tmp_path: Path
) -> None:
    manager = "tests.mutants.ordering:ForgetsTheDirectory"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))

    left = left_by(evidence, len(evidence.runs[0].operations), tmp_path)

    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata", "metadata.json"):
        assert size(left, f"latest/{name}") > 0


def test_the_package_loses_nothing(services: Services, tmp_path: Path) -> None:
    evidence = run_job(tmp_path, services, None, Checkpoint(), World(dp_shard=2))
    run = evidence.runs[0]

    left = left_by(evidence, len(run.operations), tmp_path)

    assert left["latest"] == "step_4"
    for name in ("step_2", "step_4"):
        wanted = {path for path in run.after if path.startswith(f"{name}/")}
        assert len(wanted) > 5
        assert wanted <= left.keys()


@pytest.mark.parametrize("manager", [None, "tests.mutants.ordering:RenamesTooEarly"])
def test_what_an_ext4_leaves_is_a_state_that_the_ordered_profile_has(
    manager: str | None, services: Services, tmp_path: Path
) -> None:
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))
    run = evidence.runs[0]
    profile, chance = PROFILES["ordered"], Random(0)
    disk = Disk(profile)
    parts = Parts(disk)
    wanted = set(chance.sample(range(1, len(run.operations)), 12))
    for place, operation in enumerate(run.operations, 1):
        disk.apply(0, operation, run.written)
        if place not in wanted:
            continue
        found = choose(disk, profile, None, chance, 64).found
        foreseen = [flatten(parts, parts.state(choice)) for choice in found]
        assert left_by(evidence, place, tmp_path) in foreseen
        assert left_by(evidence, place, tmp_path, journal="kept") in foreseen
