"""Scenario files are ordinary pytest items: collected, chosen, skipped, failed and reported."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from harness import prove as module
from harness import pytest_plugin
from harness.judge.outcome import Outcome
from harness.plan.model import Plan
from harness.prove import Proof
from harness.run import inspecting, support
from harness.scenario.source import Source
from harness.trial import Bench

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[3]
SCENARIO = 'name: "async: flush: a rank dies"\nruns: [{until_step: 2}]\n'
RED_TEXT = "HARD_FAIL  async: flush: a rank dies\n\n  pytest failures/a.yaml"


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run; each passes, and leaves a file in its run directory."""
    return fake_prove(monkeypatch, Proof(outcome=Outcome.PASS))


def fake_prove(monkeypatch: pytest.MonkeyPatch, proof: Proof) -> list[Plan]:
    """Replaces what runs a scenario, and what builds its implementation once before."""
    plans: list[Plan] = []
    monkeypatch.setattr(inspecting, "inspect_implementation", lambda one, _: one)

    def prove(bench: Bench, plan: Plan, source: Source) -> Proof:
        plans.append(plan)
        workspace = bench.workspace
        directory = workspace.new_run("x")
        (directory / "checkpoints").mkdir(parents=True)
        workspace.drop(directory)
        return proof

    monkeypatch.setattr(module, "prove", prove)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.setattr(pytest_plugin, "count_gpus", lambda: 0)
    return plans


def test_a_matrix_is_one_item_for_each_choice(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    text = SCENARIO + "matrix: {world: [{dp_shard: 2}, {pp: 2}, {dp_shard: 9}]}\n"
    write(pytester.path, "scenarios/a.yaml", text=text)
    run(pytester, "scenarios").assert_outcomes(passed=2, failed=1)
    assert [plan.workload.world.size for plan in proved] == [2, 2]
    run(pytester, "scenarios/a.yaml::pp2").assert_outcomes(passed=1)
    run(pytester, "scenarios", "--lf").assert_outcomes(failed=1)


def write(folder: Path, *names: str, text: str = SCENARIO) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in the folder of the test, where harness files are not collected otherwise."""
    return pytester.runpytest_inprocess("-p", "harness.pytest_plugin", *arguments)


def test_files_of_the_two_folders_are_collected_and_others_are_not(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    write(pytester.path, "scenarios/async/a.yaml", "failures/b.yml", "other/c.yaml", "d.yaml")
    result = run(pytester, "--collect-only", "-q")
    assert result.outlines[:2] == ["failures/b.yml::scenario", "scenarios/async/a.yaml::scenario"]
    assert "2 tests collected" in result.stdout.str()
    assert proved == []


def test_a_file_is_collected_wherever_it_is_when_it_is_named(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    write(pytester.path, "other/c.yaml")
    run(pytester, "other/c.yaml").assert_outcomes(passed=1)
    assert [plan.source for plan in proved] == ["other/c.yaml"]


@pytest.mark.parametrize("word", ["resume", "kill_one", "a rank dies", "flush"])
def test_folder_file_and_name_choose_scenarios(
    pytester: pytest.Pytester, proved: list[Plan], word: str
) -> None:
    write(pytester.path, "scenarios/resume/kill_one.yaml")
    write(pytester.path, "scenarios/pp/b.yaml", text=SCENARIO.replace("flush: a rank dies", "-"))
    chosen = " and ".join(word.split())
    run(pytester, "-k", chosen, "scenarios").assert_outcomes(passed=1, deselected=1)
    assert [plan.source for plan in proved] == ["scenarios/resume/kill_one.yaml"]


def test_a_file_that_cannot_be_read_fails_alone_and_says_why(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    write(pytester.path, "scenarios/a.yaml")
    write(pytester.path, "scenarios/b.yaml", text="name: b\nruns: [{until_stop: 2}]\n")
    write(pytester.path, "scenarios/c.yaml", text="")
    result = run(pytester, "scenarios")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*scenarios/b.yaml:2: runs?0?.until_stop: unknown key; known: until_step, *",
            "*scenarios/c.yaml:1: the file is empty: *",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_a_red_outcome_shows_its_report_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = Proof(
        outcome=Outcome.HARD_FAIL,
        text=RED_TEXT,
        replay="pytest failures/a.yaml",
        left_out=("does not apply: clean (x)", "does not apply: retention (y)"),
    )
    fake_prove(monkeypatch, proof)
    write(pytester.path, "scenarios/a.yaml")
    result = run(pytester, "scenarios", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*async: flush: a rank dies*", *RED_TEXT.splitlines()])
    assert "harness/prove.py" not in result.stdout.str()
    found = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    assert [(one.get("name"), one.get("value")) for one in found] == [
        ("device", "cpu"),
        ("outcome", "HARD_FAIL"),
        ("left_out", "does not apply: clean (x); does not apply: retention (y)"),
        ("replay", "pytest failures/a.yaml"),
        ("broken", "HARD_FAIL"),
        ("known_as", "scenarios/a.yaml::scenario"),
    ]


def test_a_failure_of_the_harness_itself_shows_its_traceback(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, Proof(outcome=Outcome.PASS))

    def break_down(*arguments: Any, **named: Any) -> Proof:
        raise ZeroDivisionError("of the harness")

    monkeypatch.setattr(module, "prove", break_down)
    write(pytester.path, "scenarios/a.yaml")
    result = run(pytester, "scenarios")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*break_down*", "*ZeroDivisionError: of the harness"])


def test_a_machine_that_lacks_something_skips_with_the_reason(
    pytester: pytest.Pytester, proved: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "missing", lambda: "scenarios need Linux")
    write(pytester.path, "scenarios/a.yaml")
    result = run(pytester, "scenarios", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*scenarios need Linux"])
    assert proved == []


@pytest.mark.parametrize(
    "scenario",
    [
        "runs: [{until_step: 2, faults: [{power_cut: {}, at: {step: 2}}]}, {until_step: 4}]",
        "runs: [{until_step: 2}, {until_step: 4}]\nexplore: {faults: [power_cut], budget: 2}",
    ],
)
def test_a_machine_that_cannot_cut_the_power_skips_with_the_reason(
    pytester: pytest.Pytester,
    proved: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    scenario: str,
) -> None:
    monkeypatch.setattr(support, "missing_disk", lambda name: f"no power of {name} here")
    write(pytester.path, "scenarios/a.yaml", text=f'name: "power: a"\n{scenario}\n')
    result = run(pytester, "scenarios", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no power of ext4 here*"])
    assert proved == []


def test_a_scenario_for_gpus_is_marked_and_skipped_where_there_is_none(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    write(pytester.path, "scenarios/a.yaml")
    write(pytester.path, "scenarios/b.yaml", text=SCENARIO + "device: cuda\n")
    result = run(pytester, "scenarios", "-m", "gpu", "-rs", "--strict-markers")
    result.assert_outcomes(skipped=1, deselected=1)
    result.stdout.fnmatch_lines(["SKIPPED*there is no GPU here that this torch can use"])


def test_the_implementation_reaches_the_plan(pytester: pytest.Pytester, proved: list[Plan]) -> None:
    write(pytester.path, "scenarios/a.yaml")
    pytester.mkdir("other code")
    options = ("--implementation", "mine:Manager", "--implementation-path", "other code")
    run(pytester, "scenarios", *options).assert_outcomes(passed=1)
    assert proved[0].implementation.name == "mine:Manager"
    assert proved[0].implementation.path == str(pytester.path / "other code")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--implementation", "manager"), "*--implementation 'manager': expected MODULE:NAME*"),
        (("--implementation-path", "none"), "*--implementation-path none: no such directory*"),
        (("--layout", "kempnerforg"), "*'kempnerforg' is no layout;*did you mean 'kempnerforge'?*"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_runs(
    pytester: pytest.Pytester, options: tuple[str, ...], expected: str
) -> None:
    result = run(pytester, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([expected])


def test_a_fence_of_its_own_replaces_the_timeout_of_ordinary_tests(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    write(pytester.path, "scenarios/a.yaml")
    items, _ = pytester.inline_genitems("-p", "harness.pytest_plugin", "scenarios")
    marker = items[0].get_closest_marker("timeout")
    assert marker is not None
    assert marker.args == (3600.0,)


def test_runs_are_removed_when_they_pass_and_kept_on_request(
    pytester: pytest.Pytester, proved: list[Plan]
) -> None:
    write(pytester.path, "scenarios/a.yaml")
    root = pytester.path / "runs"
    run(pytester, "scenarios", "--run-root", "runs").assert_outcomes(passed=1)
    assert list(root.iterdir()) == []
    result = run(pytester, "scenarios", "--run-root", "runs", "--keep-runs")
    result.assert_outcomes(passed=1)
    (session,) = root.iterdir()
    assert [path.name[:2] for path in session.iterdir()] == ["x-"]
    result.stdout.fnmatch_lines([f"runs are kept in {session}"])


CONFTEST = """
import harness.prove, harness.run.support
from harness import prove as module
from harness import pytest_plugin
from harness.judge.outcome import Outcome
from harness.prove import Proof

def prove(bench, plan, source):
    workspace = bench.workspace
    bench.services.reference(plan.reference_key(), lambda folder: (folder / "made").touch())
    directory = workspace.new_run("x")
    (workspace.failures.parent / "roots").open("a").write(f"{workspace.root}\\n")
    return Proof(outcome=Outcome.PASS)

harness.prove.prove = prove
harness.run.support.missing = lambda: None
"""


def test_workers_share_one_folder_that_is_gone_afterwards(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    names = [f"scenarios/{letter}.yaml" for letter in "abcd"]
    write(pytester.path, *names)
    result = pytester.runpytest_subprocess(
        "-p", "harness.pytest_plugin", "-n", "2", "--run-root", "runs", "scenarios"
    )
    result.assert_outcomes(passed=4)
    roots = (pytester.path / "roots").read_text(encoding="utf-8").split()
    assert len(roots) == 4
    assert len(set(roots)) == 1
    assert not Path(roots[0]).exists()


def test_collecting_imports_neither_torch_nor_what_needs_linux() -> None:
    code = "import sys, harness.pytest_plugin; print(*(m for m in sys.modules if m in sys.argv))"
    heavy = [
        "torch",
        "numpy",
        "harness.run.execute",
        "harness.system.seccomp",
        "harness.judge.judge",
    ]
    found = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []
