"""The matrix says what was run where, what was skipped and why, and what never ran."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.matrix.cell import MatrixCell, find_items
from harness.matrix.command import make_page
from harness.matrix.matrix import bring_together
from harness.matrix.results import ResultsError, read_results

ROOT = Path(__file__).resolve().parents[3]
BOTH = 'name: "a: b"\nmatrix: {checkpoint.async_mode: [disabled, async]}\nruns: [{until_step: 2}]\n'
ON_GPU = 'name: "g: b"\ndevice: cuda\nworld: {pp: 2}\nruns: [{until_step: 2}]\n'
EXPLORED = (
    'name: "e: b"\ndevice: cpu\nworld: {pp: 2}\nruns: [{until_step: 4}, {until_step: 4}]\n'
    "explore: {budget: 20}\n"
)
CHANGED = (
    'name: "c: b"\ndevice: cpu\nworld: {pp: 2}\n'
    "runs: [{until_step: 2}, {until_step: 4}, {until_step: 6, world: {pp: 1}}]\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "scenarios/x").mkdir(parents=True)
    for name, text in (("both", BOTH), ("gpu", ON_GPU), ("explored", EXPLORED), ("c", CHANGED)):
        (tmp_path / f"scenarios/x/{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def case(file: str, label: str, device: str, inside: str = "") -> str:
    known = f'<properties><property name="device" value="{device}"/></properties>'
    name = f'classname="scenarios.x.{file}.yaml" name="{label}"'
    return f"<testcase {name}>{known}{inside}</testcase>"


def test_a_launcher_has_a_table_of_its_own(root: Path) -> None:
    text = ON_GPU.replace("cuda", "cpu") + "launcher: torchrun\n"
    (root / "scenarios/x/gpu.yaml").write_text(text, encoding="utf-8")
    page, _ = make_page(root, [], None)
    table = "## Launcher torchrun, device cpu\n\n| layout | disabled |\n|---|---|\n"
    assert f"{table}| pp2 x fsdp1 | 1 not run |\n" in page


def junit(root: Path, *cases: str, name: str = "a.xml", day: str = "2026-05-01") -> Path:
    path = root / name
    suite = f'<testsuite timestamp="{day}T10:00:00">{"".join(cases)}</testsuite>'
    path.write_text(f"<testsuites>{suite}</testsuites>", encoding="utf-8")
    return path


def cell(device: str, layout: str, mode: str = "disabled") -> MatrixCell:
    return MatrixCell(launcher="local", device=device, layout=layout, mode=mode)


FSDP1, PP2 = "pp1 x fsdp1", "pp2 x fsdp1"


def test_each_test_has_a_cell_for_each_device_that_it_may_run_on(root: Path) -> None:
    found = {(item.file.rpartition("/")[2], item.label): item.cells for item in find_items(root)}
    assert found == {
        ("both.yaml", "disabled"): (cell("cpu", FSDP1), cell("cuda", FSDP1)),
        ("both.yaml", "async"): (cell("cpu", FSDP1, "async"), cell("cuda", FSDP1, "async")),
        ("gpu.yaml", "scenario"): (cell("cuda", PP2),),
        ("explored.yaml", "explore-1of2"): (cell("cpu", PP2),),
        ("explored.yaml", "explore-2of2"): (cell("cpu", PP2),),
        ("c.yaml", "scenario"): (cell("cpu", f"{PP2} -> {FSDP1}"),),
    }


def test_results_are_counted_where_they_ran_and_what_did_not_run_is_said(root: Path) -> None:
    failed = '<properties><property name="outcome" value="HANG"/></properties><failure/>'
    file = junit(
        root,
        case("both", "disabled", "cpu"),
        case("both", "async", "cuda", failed),
        case("gpu", "scenario", "cuda", '<skipped message="no GPU"/>'),
        case("explored", "explore-2of2", "cpu"),
        case("gone", "scenario", "cpu"),
    )
    found = bring_together(find_items(root), read_results([file]))
    assert found.cells == {
        cell("cpu", FSDP1): Counter({"passed": 1}),
        cell("cuda", FSDP1): Counter({"not run": 1}),
        cell("cpu", FSDP1, "async"): Counter({"not run": 1}),
        cell("cuda", FSDP1, "async"): Counter({"failing": 1}),
        cell("cuda", PP2): Counter({"skipped": 1}),
        cell("cpu", PP2): Counter({"not run": 1, "passed": 1}),
        cell("cpu", f"{PP2} -> {FSDP1}"): Counter({"not run": 1}),
    }
    assert found.skipped == {"no GPU": 1}
    assert found.failing == ("scenarios/x/both.yaml::async on cuda: HANG",)
    assert (found.unknown, found.days) == (1, ("2026-05-01",))


def test_a_later_file_replaces_what_an_earlier_one_says(root: Path) -> None:
    old = junit(root, case("both", "disabled", "cpu", "<error/>"))
    new = junit(root, case("both", "disabled", "cpu"), name="b.xml", day="2026-05-02")
    assert bring_together(find_items(root), read_results([old, new])).failing == ()
    assert bring_together(find_items(root), read_results([new, old])).failing == (
        "scenarios/x/both.yaml::disabled on cpu: error",
    )


def test_what_another_machine_skipped_replaces_nothing_that_ran(root: Path) -> None:
    ran = junit(root, case("both", "disabled", "cuda"))
    skipped = junit(root, case("both", "disabled", "cuda", "<skipped/>"), name="b.xml")
    for files in ([ran, skipped], [skipped, ran]):
        (found,) = read_results(files).values()
        assert found.state == "passed"


def test_the_page_has_a_table_for_each_launcher_and_device(root: Path) -> None:
    file = junit(root, case("both", "disabled", "cpu"), case("both", "async", "cpu"))
    text, is_green = make_page(root, [file], None)
    assert is_green
    assert f"    python -m harness matrix --junit {file}\n" in text
    assert "The runs began on 2026-05-01. 2 passed, 6 not run in all.\n" in text
    table = """
## Launcher local, device cpu

| layout | disabled | async |
|---|---|---|
| pp1 x fsdp1 | 1 passed | 1 passed |
| pp2 x fsdp1 | 2 not run | - |
| pp2 x fsdp1 -> pp1 x fsdp1 | 1 not run | - |

## Launcher local, device cuda

| layout | disabled | async |
|---|---|---|
| pp1 x fsdp1 | 1 not run | 1 not run |
| pp2 x fsdp1 | 1 not run | - |

## Skipped

Nothing.

## Failing

Nothing.
"""
    assert text.endswith(table)


def test_the_command_writes_the_page_and_is_red_where_a_test_fails(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    junit(root, case("both", "disabled", "cpu", "<failure/>"))
    assert main(["matrix", "--junit", "a.xml", "--markdown", "page.md"]) == 1
    assert "- scenarios/x/both.yaml::disabled on cpu: failure\n" in Path("page.md").read_text()
    assert main(["matrix"]) == 0
    assert main(["matrix", "--junit", "none.xml"]) == 2
    assert "none.xml is not a JUnit file" in capsys.readouterr().err


def test_a_file_that_is_no_junit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("a report", encoding="utf-8")
    with pytest.raises(ResultsError, match=r"a\.xml is not a JUnit file"):
        read_results([tmp_path / "a.xml"])


def test_the_names_are_those_that_pytest_gives(tmp_path: Path) -> None:
    # All of them skip where no GPU is shown.
    words = ["scenarios/gpu", "-q", "--junit-xml", str(tmp_path / "r.xml")]
    subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        env={"PATH": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        check=True,
    )
    results = read_results([tmp_path / "r.xml"])
    items = [item for item in find_items(ROOT) if item.file.startswith("scenarios/gpu/")]
    assert {(item.name, "cuda") for item in items} == set(results)
    assert {result.state for result in results.values()} == {"skipped"}


def test_a_test_in_which_pytest_was_interrupted_has_no_result(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    # What pytest writes of it has no name.
    junit.write_text('<testsuite><testcase time="0.000" /></testsuite>')
    assert read_results([junit]) == {}
