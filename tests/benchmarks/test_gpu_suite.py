"""The run on a GPU machine, as far as a machine without one can show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import collectives, pack, suite
from benchmarks.gpu.compare import compare, describe_comparison

ROOT = Path(__file__).resolve().parents[2]
SKIPS = "scenarios/gpu/pinned-memory.yaml::disabled"
"""Where no GPU is shown."""
LIMIT_S = 500.0
"""For processes that import torch, which takes a loaded machine half a minute and more."""

pytestmark = pytest.mark.timeout(600)


def asked(**changes: Any) -> suite.SuiteOptions:
    settings: dict[str, Any] = {
        "step": "s",
        "device": "cpu",
        "tests": (SKIPS,),
        "workers": 0,
        "environment": {"CUDA_VISIBLE_DEVICES": ""},
        **changes,
    }
    return suite.SuiteOptions(**settings)


def test_what_a_bare_machine_lacks_is_what_the_harness_needs_without_torch() -> None:
    names = {one.name.lower().replace("_", "-") for one in pack.needed()}
    assert {"filelock", "pydantic", "pydantic-core", "pytest", "pytest-xdist", "torchdata"} <= names
    assert not [name for name in names if name.startswith(("torch-", "nvidia", "triton"))]
    assert not names & {"torch", "numpy"}


def test_wheels_are_fetched_for_the_python_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []

    def fetch(words: list[str], check: bool) -> None:
        calls.append(words)
        (tmp_path / "w").mkdir()
        (tmp_path / "w/pytest-9.whl").touch()

    monkeypatch.setattr(subprocess, "run", fetch)
    assert pack.pack(tmp_path / "w", "3.12") == ["pytest-9.whl"]
    (words,) = calls
    assert words[1:4] == ["-m", "pip", "download"]
    assert words[words.index("--python-version") + 1] == "3.12"
    assert "--no-deps" in words
    assert "manylinux_2_28_x86_64" in words
    assert [word for word in words if word.startswith("torch==")] == []


def test_nothing_is_installed_where_nothing_was_packed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPU_SUITE_SITE", str(tmp_path / "site"))
    with pytest.raises(SystemExit, match=r"holds no wheels; make them with: gpu_suite\.sh pack"):
        pack.install(tmp_path)


def test_parts_take_every_test_once() -> None:
    tests = ("a", "b", "c", "d", "e")
    assert [suite.part(tests, number, 2) for number in (1, 2)] == [("a", "c", "e"), ("b", "d")]
    with pytest.raises(SystemExit, match="part 3 of 2: possible are 1 to 2"):
        suite.part(tests, 3, 2)


def test_a_run_that_goes_on_leaves_out_what_passed(tmp_path: Path) -> None:
    earlier = tmp_path / "suite.xml"
    cases = '<testcase classname="scenarios.gpu.a.yaml" name="x"/>' + case("b", failure("HANG"))
    junit(earlier, cases)
    tests = ("scenarios/gpu/a.yaml::x", "scenarios/gpu/a.yaml::y", "f::b")
    assert suite.left(tests, [earlier]) == tests[1:]


def test_a_run_says_what_was_skipped_and_why(tmp_path: Path) -> None:
    found = suite.run(asked(), tmp_path)
    reason = "device: cuda, and there is no GPU here that this torch can use"
    assert (found["states"], found["not_run"], found["in_time"]) == ({"skipped": 1}, 0, True)
    assert found["skipped"] == {reason: 1}
    assert suite.describe_suite(found).endswith(f"1 skipped, 0 not run\n  1 skipped: {reason}")
    assert (tmp_path / "s.log").read_text(encoding="utf-8").count("1 skipped") == 1


def test_a_run_whose_time_is_over_says_what_did_not_run(tmp_path: Path) -> None:
    # With nothing but a test that never ends, since any other may be quicker than its end.
    endless = tmp_path / "test_endless.py"
    endless.write_text("import signal\n\ndef test_endless(): signal.pause()\n", encoding="utf-8")
    found = suite.run(
        asked(
            tests=(f"{endless}::test_endless",),
            environment={"PYTEST_ADDOPTS": "-c pyproject.toml -p harness.pytest_plugin"},
            limit_s=0.0,
        ),
        tmp_path,
    )
    assert (found["states"], found["not_run"], found["in_time"]) == ({}, 1, False)
    assert "1 not run (the time was up)" in suite.describe_suite(found)


def junit(path: Path, *cases: str) -> Path:
    path.write_text(f"<testsuite>{''.join(cases)}</testsuite>", encoding="utf-8")
    return path


def case(name: str, inside: str = "") -> str:
    return f'<testcase classname="f" name="{name}">{inside}</testcase>'


def failure(outcome: str) -> str:
    told = f'<properties><property name="outcome" value="{outcome}"/></properties>'
    return f"{told}<failure/>"


def test_verdicts_are_compared_test_by_test(tmp_path: Path) -> None:
    skipped = '<skipped message="x"/>'
    cpu = junit(
        tmp_path / "cpu.xml",
        case("a"), case("b"), case("c", failure("HANG")), case("d", skipped), case("e"),
        case("g", failure("LEAK")),
    )  # fmt: skip
    cuda = junit(
        tmp_path / "cuda.xml",
        case("a"), case("b", failure("HANG")), case("c", failure("HANG")), case("d"), case("f"),
        case("g", failure("HANG")),
    )  # fmt: skip
    found = compare([cpu], [cuda])
    assert found == {
        "compared": 4,
        "agree": 2,
        "differ": {
            "f::b": {"cpu": "passed", "cuda": "HANG"},
            "f::g": {"cpu": "LEAK", "cuda": "HANG"},
        },
        "one_side_only": 4,
    }
    assert describe_comparison(found).splitlines()[1] == "  f::b: cpu passed, cuda HANG"


def test_what_was_skipped_replaces_no_verdict(tmp_path: Path) -> None:
    skipped = '<skipped message="x"/>'
    cpu = junit(tmp_path / "cpu.xml", case("a"), case("b"))
    files = [
        junit(tmp_path / "b.xml", case("a", failure("LEAK")), case("b", skipped)),
        junit(tmp_path / "a.xml", case("a", skipped), case("b")),
    ]
    for later, path in enumerate(files):
        os.utime(path, (later, later))
    found = compare([cpu], files)
    assert (found["agree"], found["differ"]) == (1, {"f::a": {"cpu": "passed", "cuda": "LEAK"}})


def test_where_no_test_is_left_none_is_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="s: no test is left to run"):
        suite.run(asked(tests=()), tmp_path)


def test_a_collective_is_tried_by_two_processes() -> None:
    found = collectives.try_one("cpu", "gloo", "reduce_scatter_tensor of means", limit_s=LIMIT_S)
    assert found == "works"


def test_a_collective_that_is_not_there_is_told_with_its_error() -> None:
    found = collectives.try_one("cpu", "gloo", "telepathy", limit_s=LIMIT_S)
    assert found.startswith("exit 1: ")
    assert found.endswith("KeyError: 'telepathy'")


def test_two_ranks_that_try_collectives_have_one_gpu_between_them() -> None:
    gpus = collectives.workload("cuda", "nccl_hostid").gpus
    assert gpus is not None
    assert (gpus.count, gpus.memory, gpus.sharing) == (1, 0.45, "nccl_hostid")


def test_a_step_leaves_machine_versions_and_numbers(tmp_path: Path) -> None:
    words = ["checkpoint", "--device", "cpu", "--sizes", "50", "--repeat", "1", "--loops", "1"]
    subprocess.run(
        [ROOT / "benchmarks/gpu_suite.sh", *words, "--out", str(tmp_path)],
        env={**os.environ, "GPU_SUITE_PYTHON": sys.executable},
        check=True,
        capture_output=True,
    )
    told = json.loads((tmp_path / "checkpoint.json").read_text())
    assert set(told["machine"]) == {
        "date", "platform", "processors", "memory_gib", "python", "packages", "gpus",
    }  # fmt: skip
    size = told["found"]["sizes"]["50"]
    assert {"copy: copy", "stall: kempnerforge pinned", "load: dcp.load"} <= set(size)
    text = (tmp_path / "checkpoint.txt").read_text()
    assert text.startswith("checkpoint: ")
    assert "\n| kempnerforge async | " in text
