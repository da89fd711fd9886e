"""What a scenario may ask of a power cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.faults.power_cut import PowerCut
from harness.scenario.read import ScenarioFile, read_file
from tests.harness.scenario.test_possible import read

AT = "at: {save: 1, phase: publish}"


def cut(settings: str) -> str:
    return f"[{{power_cut: {{{settings}}}, {AT}}}]"


def test_a_power_cut_falls_on_ext4_and_takes_the_journal_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: a\nruns: [{{until_step: 2, faults: {cut('')}}}, {{until_step: 4}}]\n")
    one = read_file(path, gpus=0)[""]
    assert isinstance(one, ScenarioFile)
    (fault,) = one.scenario.runs[0].faults
    assert isinstance(fault, PowerCut)
    power = fault.power_cut
    assert (power.filesystem, power.journal, power.rank) == ("ext4", "lost", "all")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("filesystem: xfs, journal: kept", ""),
        ("filesystem: zfs", "'zfs' is not a filesystem; known: ext4, xfs, btrfs"),
        ("journal: half", "'half' is not a journal"),
        ("filesystem: btrfs, journal: kept", "btrfs has no journal to keep"),
        ("rank: 1", "unknown key"),
    ],
)
def test_a_power_cut_is_one_of_those_that_can_be_made(
    tmp_path: Path, settings: str, expected: str
) -> None:
    found = read(tmp_path, f"runs: [{{until_step: 2, faults: {cut(settings)}}}, {{until_step: 4}}]")
    assert expected in found
    assert bool(expected) == bool(found)


def test_a_scenario_has_one_file_system(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "runs:",
        f"  - {{until_step: 2, faults: {cut('filesystem: xfs')}}}",
        f"  - {{until_step: 4, faults: {cut('filesystem: btrfs')}}}",
        "  - {until_step: 6}",
    )
    text = "the checkpoint directory of this scenario is already on xfs"
    assert found == f"x.yaml:4: runs[1].faults[0].power_cut.filesystem: {text}"


def test_a_directory_on_a_disk_of_its_own_is_not_relocated(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f"runs: [{{until_step: 2, faults: {cut('')}}},",
        "  {until_step: 4, before: [{relocate: {how: move, to: elsewhere}}]}]",
    )
    assert "it cannot be relocated" in found
    assert found.startswith("x.yaml:3: runs[1].before[0]")


def test_a_run_that_a_power_cut_ends_cannot_be_explored(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f"runs: [{{until_step: 2, faults: {cut('')}}}, {{until_step: 4}}]",
        "explore: {faults: [power_cut]}",
    )
    assert "run 0 is already ended by a fault, so it cannot be explored" in found


def test_an_exploration_and_a_fault_agree_on_the_file_system(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f"runs: [{{until_step: 2}}, {{until_step: 4, faults: {cut('filesystem: xfs')}}}]",
        "explore: {faults: [kill_all, power_cut], power_cut: {filesystem: ext4}}",
    )
    assert "explore.power_cut.filesystem: the checkpoint directory of this scenario" in found
