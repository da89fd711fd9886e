"""A hit is a candidate until a real file system shows it: the power of an ext4 is cut there."""

from __future__ import annotations

from collections.abc import Iterator
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
from harness.run.services import Services
from harness.scenario.schema import Checkpoint, World
from tests.harness.crash.ext4 import Ext4, Unavailable, mounted, read_tree, replay
from tests.planted.test_ordering import run_job


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Ext4]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        with mounted(folder) as found:
            yield found
    except Unavailable as error:
        pytest.skip(str(error))


def run_until_cut(evidence: Evidence, operations: int, disk: Ext4) -> None:
    run = evidence.runs[0]
    replay(run.operations[:operations], run.written, disk.root)
    disk.cut()


def test_a_shard_without_a_sync_is_empty_behind_latest(
    services: Services, disk: Ext4, tmp_path: Path
) -> None:
    manager = "tests.planted.ordering:ForgetsOneShard"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))
    found = explore(evidence, profile="ordered", most=16)
    hit = next(one for one in found.hits if one.cause.fault.property == "latest_durable")
    swap = hit.cause.operations[-1][1]
    run = evidence.runs[0]
    synced = next(
        one.index for one in run.operations[swap:] if one.kind == "fsync" and one.path == "."
    )

    run_until_cut(evidence, synced + 1, disk)

    assert (disk.root / "latest").resolve().name == "step_2"
    assert (disk.root / "latest" / "__0_0.distcp").stat().st_size == 0
    assert (disk.root / "latest" / "__1_0.distcp").stat().st_size > 0


def test_a_swap_without_a_sync_is_not_there(services: Services, disk: Ext4, tmp_path: Path) -> None:
    manager = "tests.planted.ordering:ForgetsTheLastSync"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))

    run_until_cut(evidence, len(evidence.runs[0].operations), disk)

    assert (disk.root / "latest").resolve().name == "step_2"
    assert (disk.root / "step_4" / "metadata.json").stat().st_size > 0


def test_names_without_a_sync_of_their_directory_are_kept_by_the_journal(
    services: Services, disk: Ext4, tmp_path: Path
) -> None:
    manager = "tests.planted.ordering:ForgetsTheDirectory"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), World(dp_shard=2))

    run_until_cut(evidence, len(evidence.runs[0].operations), disk)

    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata", "metadata.json"):
        assert (disk.root / "latest" / name).stat().st_size > 0


def test_the_package_loses_nothing(services: Services, disk: Ext4, tmp_path: Path) -> None:
    evidence = run_job(tmp_path, services, None, Checkpoint(), World(dp_shard=2))
    run = evidence.runs[0]

    run_until_cut(evidence, len(run.operations), disk)

    assert (disk.root / "latest").resolve().name == "step_4"
    for name in ("step_2", "step_4"):
        wanted = [path for path in run.after if path.startswith(f"{name}/")]
        assert len(wanted) > 5
        assert all((disk.root / path).exists() for path in wanted)


@pytest.mark.parametrize("manager", [None, "tests.planted.ordering:RenamesTooEarly"])
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
        assert left_by_ext4(evidence, place, tmp_path / str(place)) in foreseen


def left_by_ext4(evidence: Evidence, operations: int, folder: Path) -> Tree:
    folder.mkdir()
    try:
        with mounted(folder) as disk:
            run_until_cut(evidence, operations, disk)
            return read_tree(disk.root)
    except Unavailable as error:
        pytest.skip(str(error))
