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
from harness.judge.judge import judge
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from tests.harness.proving import ROOT

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

_BUG = "tests.planted.state:ForgetsGenerators"
_SCENARIO = "scenarios/sync/killed-in-publish-before-rename.yaml"
_REPLAYS = 10


def _pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=100, check=False
    )


def _fail_once() -> tuple[str, list[str]]:
    """Run a planted bug as a user would; the report, and the command that it offers."""
    told = _pytest(_SCENARIO, "--implementation", _BUG, "--implementation-path", ".")
    assert told.returncode == 1, told.stdout
    command = re.search(r"^ +(\S+ -m pytest failures/.*)$", told.stdout, re.MULTILINE)
    assert command is not None, told.stdout
    return told.stdout, shlex.split(command[1])


def _remove(failure: Path) -> None:
    failure.unlink(missing_ok=True)
    shutil.rmtree(failure.with_suffix(""), ignore_errors=True)


def test_a_failure_replays_the_same_way_ten_times_out_of_ten(
    services: Services, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    report, command = _fail_once()
    failure = ROOT / command[3]
    request.addfinalizer(lambda: _remove(failure))
    assert "SILENT_DIVERGENCE" in report
    assert "VIOLATED resume_exact" in report
    assert ">>> kill ranks 0, 1" in report
    assert "faults: [{kill: {rank: all}" in report

    assert Path(command[0]).resolve() == Path(sys.executable).resolve()
    again = _pytest(*command[3:])
    assert again.returncode == 1
    assert "SILENT_DIVERGENCE" in again.stdout

    found = read_file(failure)[""]
    assert not isinstance(found, ScenarioError)
    plan = make_plan(
        found.scenario,
        source=command[3],
        implementation=Implementation(name=_BUG, path=str(ROOT)),
    )
    outcomes = set()
    for number in range(_REPLAYS):
        evidence = execute(plan, tmp_path / f"replay{number}", services)
        judgement = judge(evidence)
        violated = tuple(one.property for one in judgement.verdicts if one.state == "violated")
        landed = tuple(item.strike for run in evidence.runs for item in run.landed)
        resumed = tuple(
            record.step
            for run in evidence.runs
            for story in run.stories
            for record in story
            if isinstance(record, Resumed)
        )
        outcomes.add((judgement.outcome, violated, landed, resumed))
    strike = "run0.kill-all-save2-publish-rename-1-before"
    assert outcomes == {
        ("SILENT_DIVERGENCE", ("resume_exact",), (strike,), (None, None, 2, 2)),
    }
