"""A failure is reported with a command, and what it replays fails in the same way every time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.evidence.record import Resumed
from harness.judge.comparison import compare, know
from harness.judge.judge import judge
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.report.head import read_head
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from tests.harness.proving import ROOT

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    # Some thirty runs of a job: a minute on two idle cores.
    pytest.mark.timeout(900),
]

_PROCESS = (
    "tests.mutants.state:ForgetsGenerators",
    "sync/killed-in-publish-before-rename.yaml::scenario",
)
_STORAGE = ("tests.mutants.storage:NeverRecovers", "storage/disk-full-once.yaml::disabled")
_REPLAYS = 10


def _pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=400, check=False
    )


def _fail_once(bug: str, scenario: str) -> tuple[str, list[str]]:
    """Run a mutant as a user would; the report, and the command that it offers."""
    options = ("--implementation", bug, "--implementation-path", ".", "--promises", "all")
    described = _pytest(f"scenarios/{scenario}", *options)
    assert described.returncode == 1, described.stdout
    command = re.search(r"^ +(\S+ -m pytest failures/.*)$", described.stdout, re.MULTILINE)
    assert command is not None, described.stdout
    return described.stdout, shlex.split(command[1])


def _remove(failure: Path) -> None:
    failure.unlink(missing_ok=True)
    shutil.rmtree(failure.with_suffix(""), ignore_errors=True)


def _come_to(
    bug: str, failure: Path, directory: Path, services: Services
) -> tuple[str, str, tuple[str, ...], tuple[int | None, ...]]:
    """What one more run of a failure file comes to: the answer, the strikes, the resumes."""
    found = read_file(failure)[""]
    assert not isinstance(found, ScenarioError)
    used = Implementation(name=bug, path=str(ROOT))
    plan = make_plan(found.scenario, source=failure.name, implementation=used)
    evidence = execute(plan, directory, services)
    head = read_head(found.source.text)
    assert head is not None
    now = know(judge(evidence))
    fired = tuple(item.strike for run in evidence.runs for item in run.fired)
    event_logs = [event_log for run in evidence.runs for event_log in run.event_logs]
    resumed = [
        one.step for event_log in event_logs for one in event_log if isinstance(one, Resumed)
    ]
    return str(compare(head.known, now)), str(now), fired, tuple(resumed)


def test_a_killed_job_fails_the_same_way_ten_times_out_of_ten(
    services: Services, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bug, scenario = _PROCESS
    report, command = _fail_once(bug, scenario)
    failure = ROOT / command[3]
    request.addfinalizer(lambda: _remove(failure))
    assert "VIOLATED resume_exact" in report
    assert ">>> kill ranks 0, 1" in report
    assert "faults: [{kill: {rank: all}" in report

    assert Path(command[0]).resolve() == Path(sys.executable).resolve()
    again = _pytest(*command[3:])
    assert again.returncode == 1
    assert "\nSAME: it was SILENT_DIVERGENCE (resume_exact)\n" in again.stdout

    assert {
        _come_to(bug, failure, tmp_path / f"replay{number}", services) for number in range(_REPLAYS)
    } == {
        (
            "SAME",
            "SILENT_DIVERGENCE (resume_exact)",
            ("run0.kill-all-save2-publish-rename-1-before",),
            (None, None, 2, 2),
        ),
    }


def test_a_full_disk_fails_the_same_way_ten_times_and_the_package_has_it_fixed(
    services: Services, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bug, scenario = _STORAGE
    _, command = _fail_once(bug, scenario)
    failure = ROOT / command[3]
    request.addfinalizer(lambda: _remove(failure))

    came_to = {
        _come_to(bug, failure, tmp_path / f"replay{number}", services)[:2]
        for number in range(_REPLAYS)
    }
    assert came_to == {("SAME", "HARD_FAIL (nothing_lost, bounded)")}

    fixed = _pytest(command[3])
    assert fixed.returncode == 0
    assert "FIXED: it was HARD_FAIL (nothing_lost, bounded), now it is PASS" in fixed.stdout
    assert f"(the failure was that of {bug}, this is " in fixed.stdout
