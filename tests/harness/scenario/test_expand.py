"""A matrix makes one scenario of each combination, and its mistakes are named like all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.errors import ScenarioError
from harness.scenario.read import ScenarioFile, read_file, read_scenario

HEAD = "name: a\nruns: [{until_step: 4}, {until_step: 8}]\nmatrix:\n"


def read(folder: Path, text: str) -> dict[str, ScenarioFile | ScenarioError]:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_file(path, shown="x.yaml", gpus=0)


def whole(folder: Path, text: str) -> dict[str, ScenarioFile]:
    found = read(folder, text)
    return {label: one for label, one in found.items() if isinstance(one, ScenarioFile)}


def test_each_combination_is_a_scenario_with_a_name_of_its_own(tmp_path: Path) -> None:
    text = HEAD + (
        "  world: [{dp_shard: 2}, {pp: 2, dp_shard: 2}]\n"
        "  checkpoint.async_mode: [disabled, async]\n"
    )
    found = whole(tmp_path, text)
    assert list(found) == [
        "dp_shard2-disabled",
        "dp_shard2-async",
        "pp2_dp_shard2-disabled",
        "pp2_dp_shard2-async",
    ]
    last = found["pp2_dp_shard2-async"]
    assert last.scenario.name == "a [pp2_dp_shard2-async]"
    assert last.scenario.world.size == 4
    assert last.scenario.checkpoint.async_mode == "async"
    assert last.source.lines[("world", "dp_shard")] == 4
    assert last.source.lines[("checkpoint", "async_mode")] == 5


def test_a_number_in_a_key_counts_the_entries_of_a_list(tmp_path: Path) -> None:
    text = HEAD + "  runs.1.load_step: [2, 4]\n"
    found = whole(tmp_path, text)
    assert [one.scenario.runs[1].load_step for one in found.values()] == [2, 4]
    assert [one.scenario.runs[0].load_step for one in found.values()] == [None, None]


def test_labels_that_would_be_alike_are_numbered(tmp_path: Path) -> None:
    assert list(whole(tmp_path, HEAD + "  seed: [1, 1]\n")) == ["1-1", "2-1"]


def test_a_combination_that_cannot_be_leaves_the_others(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "  world:\n  - {dp_shard: 2}\n  - {dp_shard: 9}\n")
    assert isinstance(found["dp_shard2"], ScenarioFile)
    assert str(found["dp_shard9"]).startswith("x.yaml:6: world: pp1 x fsdp9 needs 9 ranks")


def test_a_mistake_in_all_combinations_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"^x\.yaml:4: sed: unknown key; .*'seed'\?\)$"):
        read(tmp_path, HEAD + "  sed: [1]\n")


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ("  []", "3: matrix: must be a mapping of settings to lists, such as "),
        ("  {}", "3: matrix: must be a mapping of settings to lists, such as "),
        ("  seed: 1", "4: matrix.seed: must be a list of at least one value"),
        ("  seed: []", "4: matrix.seed: must be a list of at least one value"),
        ("  name.x: [1]", "4: matrix.name.x: the file has no place name.x"),
        ("  runs.2.until_step: [1]", "4: matrix.runs.2.until_step: the file has no place runs.2"),
        ("  runs: [[]]", "4: matrix.runs: cannot vary: write another file"),
        (
            "  runs.0.until_step: [1]",
            "4: matrix.runs.0.until_step: runs.0.until_step is also set on line 2",
        ),
        (
            f"  seed: [{', '.join('1' * 17)}]\n  device: [{', '.join('1' * 16)}]",
            "3: matrix: expands to 272 scenarios; possible: at most 256",
        ),
    ],
)
def test_a_matrix_that_says_nothing_is_refused(tmp_path: Path, matrix: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path, HEAD + matrix + "\n")
    assert str(caught.value).startswith(f"x.yaml:{expected}")


def test_one_scenario_is_not_read_from_a_file_that_has_several(tmp_path: Path) -> None:
    read(tmp_path, HEAD + "  seed: [1, 2]\n")
    with pytest.raises(
        ScenarioError, match=r"matrix: expands to 2 scenarios; only one is possible here"
    ):
        read_scenario(tmp_path / "x.yaml", gpus=0)
