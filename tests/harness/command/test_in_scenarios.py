"""A command in a scenario is struck, started again and judged; a failure of `try` is one, too."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from harness.command.session import try_command
from harness.command.trying import TryOptions
from harness.judge.comparison import Answer
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.prove import prove
from harness.run.command.command import Command, CommandError
from harness.run.services import Services
from harness.run.support import missing_disk, missing_mounts
from harness.scenario.read import check_source
from harness.scenario.source import parse_source, read_source
from harness.trial import Bench, Trial, try_plan
from harness.workspace import Workspace
from tests.harness.proving import ROOT, bench_of

pytestmark = [
    pytest.mark.skipif(missing_mounts() is not None, reason=str(missing_mounts())),
    pytest.mark.timeout(300),
]

SCRIPT = Path(__file__).with_name("train.py")


def trial_of(services: Services, folder: Path, how: str, faults: str = "", more: str = "") -> Trial:
    """Two starts of the script; the first is struck."""
    text = (
        f'name: a command\njob: {{command: ["{{python}}", "{SCRIPT}", "{{dir}}", {how}]}}\n'
        f"{more}\nruns:\n  - faults: [{faults}]\n  - {{}}\n"
    )
    source = parse_source(text, shown="here")
    scenario = check_source(source, gpus=0)
    plan = make_plan(scenario, source="here", implementation=Implementation())
    return try_plan(bench_of(services, folder), plan)


KILLED = "{kill: {rank: all}, at: {operation: write, nth: 2, when: after}}"
OPENED = "{kill: {rank: all}, at: {operation: open, nth: 2, when: after}}"
TORN = f"{{short_write: {{rank: 0}}, at: {{operation: write, nth: 2}}}}, {KILLED}"
REMOVED = "{kill: {rank: all}, at: {operation: unlink, when: after}}"
FULL = "{fail: {rank: 0, error: ENOSPC}, at: {operation: write, nth: 2}}"
CUT = "{power_cut: {journal: kept}, at: {operation: rename, nth: 2, when: after}}"
TRUSTING = "    found = newest(root)"
TOLERANT = f"""{TRUSTING}
    try:
        found and json.loads(found.read_text())
    except ValueError:
        found = None"""
NAMED = 'layout: {checkpoints: "step-{step}.json"}'


@pytest.mark.parametrize(
    ("how", "faults", "more", "expected"),
    [
        ("renames", KILLED, "", "PASS"),
        ("renames", FULL, "", "PASS"),
        ("renames", KILLED, "expect: {first_step: 3}", "PASS"),
        ("removes", KILLED, NAMED, "PASS"),
        ("forgets", KILLED, "", "SILENT_DIVERGENCE same_result"),
        ("in place", OPENED, "", "HARD_FAIL undisturbed_runs_end"),
        ("in place", TORN, "", "HARD_FAIL undisturbed_runs_end"),
        ("removes", REMOVED, "expect: {first_step: 3}", "LOST_WORK first_step"),
        ("waits", FULL, "", "HANG bounded"),
    ],
)
def test_a_command_is_judged_by_its_end_and_by_what_it_leaves(
    how: str, faults: str, more: str, expected: str, services: Services, tmp_path: Path
) -> None:
    trial = trial_of(services, tmp_path, how, faults, more)
    judgement = trial.judgement
    assert " ".join((judgement.outcome, *judgement.broken)) == expected
    judged = {one.property: one.state for one in judgement.verdicts}
    if expected == "PASS":
        result = trial.evidence.runs[1].result
        assert result is not None
        assert (result.is_compared, result.not_judged) == (True, ())
        assert judged["whole_or_absent"] == ("holds" if more == NAMED else "does_not_apply")
    assert judged["resume_exact"] == "does_not_apply", "nothing says what it resumed"


@pytest.mark.skipif(missing_disk("ext4") is not None, reason=str(missing_disk("ext4")))
@pytest.mark.parametrize(("how", "outcome"), [("renames", "PASS"), ("unsynced", "HARD_FAIL")])
def test_the_power_is_cut_under_a_command(
    how: str, outcome: str, services: Services, tmp_path: Path
) -> None:
    trial = trial_of(services, tmp_path, how, CUT)
    assert trial.judgement.outcome == outcome
    assert trial.evidence.runs[0].cut is not None


PROBED = """
name: a command with a probe
job:
  command: ["{{python}}", "{script}", "{{dir}}", {how}]
  env: {{PYTHONPATH: "{root}"}}
  probe: true
layout: {{checkpoints: "step-{{step}}.json", pointer: {{file: latest}}}}
runs:
  - faults: [{fault}]
  - {{}}
"""
AT_STEP = "{kill: {rank: all}, at: {step: 5}}"


@pytest.mark.parametrize(
    ("how", "fault", "expected"),
    [
        ("correct", AT_STEP, "PASS"),
        ("correct", "{kill: {rank: all}, at: {operation: rename, nth: 3}}", "PASS"),
        ("other", AT_STEP, "SILENT_DIVERGENCE same_result resume_exact"),
        ("again", AT_STEP, "SILENT_DIVERGENCE samples_exactly_once"),
        ("early", "{kill: {rank: all}, at: {operation: write, nth: 3}}", "LOST_WORK nothing_lost"),
        ("oldest", AT_STEP, "LOST_WORK nothing_lost"),
    ],
)
def test_a_probe_says_what_more_properties_need(
    how: str, fault: str, expected: str, services: Services, tmp_path: Path
) -> None:
    script = SCRIPT.with_name("probed.py")
    text = PROBED.format(script=script, how=how, fault=fault, root=ROOT)
    scenario = check_source(parse_source(text, shown="here"), gpus=0)
    plan = make_plan(scenario, source="here", implementation=Implementation())
    judgement = try_plan(bench_of(services, tmp_path), plan).judgement
    assert " ".join((judgement.outcome, *judgement.broken)) == expected
    judged = {one.property for one in judgement.verdicts if one.state != "does_not_apply"}
    assert judged >= {"nothing_lost", "agreement", "resume_exact", "samples_exactly_once"}
    assert judged >= {"latest_durable", "latest_forward", "whole_or_absent"}


def test_later_starts_can_have_other_words(services: Services, tmp_path: Path) -> None:
    other = f'["{{python}}", "{SCRIPT}", "{{dir}}", forgets]'
    text = (
        f'name: a command\njob: {{command: ["{{python}}", "{SCRIPT}", "{{dir}}", renames], '
        f"resume: {other}}}\nruns: [{{faults: [{KILLED}]}}, {{}}]\n"
    )
    scenario = check_source(parse_source(text, shown="here"), gpus=0)
    plan = make_plan(scenario, source="here", implementation=Implementation())
    assert try_plan(bench_of(services, tmp_path), plan).judgement.broken == ("same_result",)


def test_a_command_that_cannot_be_tested_is_refused_with_a_sentence(
    services: Services, tmp_path: Path
) -> None:
    text = 'name: a\njob: {command: [cat, "{dir}/nothing"]}\nruns: [{}]\n'
    scenario = check_source(parse_source(text, shown="here"), gpus=0)
    plan = make_plan(scenario, source="here", implementation=Implementation())
    with pytest.raises(CommandError, match="No such file or directory"):
        try_plan(bench_of(services, tmp_path), plan)
    assert not list((tmp_path / "runs").glob("a-*"))


def test_what_try_finds_replays_until_it_is_mended(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    shutil.copy(SCRIPT, script)
    command = Command(
        words=(sys.executable, str(script), "{dir}", "in place"),
        cwd=tmp_path,
        environment=dict(os.environ),
    )
    workspace = Workspace(root=tmp_path / "runs", failures=tmp_path / "failures")
    found = try_command(TryOptions(command=command, budget_s=240.0), workspace, lambda _: None)
    assert not found.is_green
    files = sorted((tmp_path / "failures").glob("*.yaml"))
    assert len(files) == 2, "an empty file, and a torn one"
    assert found.text.count("    replay: ") == 2
    for answer in (Answer.SAME, Answer.FIXED):
        with Services(tmp_path / answer) as services:
            bench = Bench(services=services, workspace=workspace, gpus=0)
            for file in files:
                source = read_source(file)
                assert prove(bench, bench.plan_of(source), source).answer is answer
        script.write_text(script.read_text().replace(TRUSTING, TOLERANT))
