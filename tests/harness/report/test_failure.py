"""A failure file is a scenario: it reads back as the one that failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.judge.comparison import Known, know
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.plan.model import Implementation
from harness.report.failure import failure_name, failure_text, scenario_text, write_failure
from harness.report.head import FailureHead, read_head
from harness.scenario.read import read_scenario
from harness.scenario.schema import Scenario
from harness.scenario.source import read_source
from tests.harness.judge.cases import correct

LARGE = """\
# a comment
name: "async: flush: 'one' rank of stage 1 dies: again"
runs:
  - until_step: 8
    faults:
      - {kill: {rank: 3}, at: {save: 2, phase: flush, operation: write, path: "*/pp1/*", nth: 2}}
      - {sigterm: {rank: all}, at: {step: 6, once_published: true}}
  - {until_step: 12, load_step: 4}
seed: 7
expect: {resumed_from_step: [null], properties: [agreement, bounded, resume_exact]}
world: {pp: 2, dp_shard: 2}
model: {preset: tiny_vlm, layers: 4, dim: 64}
checkpoint: {async_mode: async_with_pinned_mem, keep_last_n: 3, dyn_ckpt_window: {stop: 8}}
freeze:
  base: [{module: vision_encoder}, {module: adapter, frozen: false}]
  schedule: [{start_step: 5, specs: [{module: vision_encoder, frozen: false}]}]
"""
BETWEEN = """\
name: "at rest: much happens between two runs"
world: {pp: 2}
runs:
  - {until_step: 4}
  - until_step: 6
    world: {pp: 1}
    freeze: {base: [{module: transformer, frozen: false}]}
    ignore_freeze_mismatch: true
    before:
      - {flip_bit: {path: "step_4/*", byte: 0}}
      - {truncate: {path: a, to: 0, every: true}}
      - {delete: {path: a}}
      - {swap: {path: a, against: step_2}}
      - {half_delete: {path: a}}
      - {hostile: {path: a}}
      - {write: {path: a, text: "b\\nc"}}
      - {foreign: {path: a, kind: link}}
      - {leftover: {kind: staging}}
      - {latest: {step: 0}}
      - {latest: {becomes: absent}}
      - {relocate: {how: copy, to: elsewhere}}
    refused: "(?i)freeze: 'x'"
"""
SMALL = "name: small\nruns: [{until_step: 4}]\n"


def _scenario(folder: Path, text: str) -> Scenario:
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return read_scenario(path, gpus=0)


@pytest.mark.parametrize("text", [LARGE, BETWEEN, SMALL])
def test_the_file_reads_back_as_the_scenario(tmp_path: Path, text: str) -> None:
    scenario = _scenario(tmp_path, text)
    case = correct()
    case.runs[0].leaked = ("a process",)
    written = failure_text(scenario, judge(case.evidence()))
    assert _scenario(tmp_path, written) == scenario
    assert scenario_text(_scenario(tmp_path, written)) == scenario_text(scenario)


def test_defaults_are_left_out_and_short_parts_stay_on_a_line(tmp_path: Path) -> None:
    text = scenario_text(_scenario(tmp_path, LARGE))
    assert text.splitlines()[:4] == [
        "name: 'async: flush: ''one'' rank of stage 1 dies: again'",
        "seed: 7",
        "world: {pp: 2, dp_shard: 2}",
        "model: {preset: tiny_vlm, layers: 4, dim: 64}",
    ]
    assert "\n      - {sigterm: {rank: all}, at: {step: 6, once_published: true}}\n" in text
    assert scenario_text(_scenario(tmp_path, SMALL)) == "name: small\nruns:\n  - {until_step: 4}\n"


@pytest.mark.parametrize("world", ["{pp: 1}", "{dp_shard: 2}", "{pp: 3, dp_shard: 2}"])
def test_a_world_of_a_run_says_what_is_not_default_and_something(
    tmp_path: Path, world: str
) -> None:
    text = (
        "name: small\nworld: {pp: 2}\nmodel: {layers: 3}\nruns:\n  - {until_step: 4}\n"
        f"  - {{until_step: 4, world: {world}, refused: x}}\n"
    )
    assert scenario_text(_scenario(tmp_path, text)) == text


def test_a_fault_with_defaults_alone_still_says_what_it_is(tmp_path: Path) -> None:
    text = (
        "name: small\nruns:\n  - until_step: 4\n"
        "    faults: [{power_cut: {}, at: {step: 2}}, {kill: {}, at: {step: 3}}]\n"
    )
    written = scenario_text(_scenario(tmp_path, text))
    assert "{power_cut: {filesystem: ext4}, at: {step: 2}}" in written
    assert "{kill: {rank: all}, at: {step: 3}}" in written


def test_the_head_says_what_happened(tmp_path: Path) -> None:
    case = correct()
    case.runs[0].leaked = ("a process\nof two lines",)
    used = Implementation(name="mine:Manager", path="/code")
    text = failure_text(_scenario(tmp_path, SMALL), judge(case.evidence()), used)
    head = text.partition("name:")[0].splitlines()
    assert head == [
        "# LEAK",
        "# broken: clean",
        "# resumed from: step 2",
        "# clean is violated: No process, thread, port, temporary file or lock outlives a run.",
        "# run 0: process a process",
        "# of two lines outlived it",
        "# does not apply: freeze_consistent (the scenario has no freeze settings)",
        "# does not apply: integrity (nothing was damaged between runs)",
        "# does not apply: no_code_on_load (no hostile file was planted)",
        "# implementation: mine:Manager in /code",
    ]
    assert yaml.safe_load(text)["name"] == "small"


def test_a_failure_is_written_once_whatever_it_came_to(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(LARGE, encoding="utf-8")
    source = read_source(path)
    first = write_failure(tmp_path / "failures", source, judge(correct().evidence()))
    again = write_failure(tmp_path / "failures", read_source(first), judge(correct().evidence()))
    assert first == again
    assert first.name.startswith("async-flush-one-rank-of-stage-1-dies-again-")
    assert first.name == failure_name(_scenario(tmp_path, LARGE))


def test_a_replay_reads_in_the_head_what_the_failure_came_to(tmp_path: Path) -> None:
    case = correct()
    case.runs[0].leaked = ("a process\nof two lines",)
    judgement = judge(case.evidence())
    used = Implementation(name="mine:Manager", path="/code in here")
    text = failure_text(_scenario(tmp_path, SMALL), judgement, used)
    assert read_head(text) == FailureHead(known=know(judgement), implementation="mine:Manager")
    passed = failure_text(_scenario(tmp_path, SMALL), judge(correct().evidence()))
    assert read_head(passed) == FailureHead(
        known=Known(outcome=Outcome.PASS, broken=(), resumed=("step 2",)),
        implementation="kempnerforge.checkpoint.manager:CheckpointManager",
    )


@pytest.mark.parametrize(
    "text", ["", SMALL, LARGE, f"# LEAK\n{SMALL}", f"# A LEAK\n# broken: clean\n{SMALL}"]
)
def test_other_files_have_no_head(text: str) -> None:
    assert read_head(text) is None


def test_another_failure_of_the_same_scenario_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SMALL, encoding="utf-8")
    judgement = judge(correct().evidence())
    first = write_failure(tmp_path, read_source(path), judgement)
    other = write_failure(tmp_path, read_source(path), judgement, suffix="-other")
    assert other.name == f"{first.stem}-other.yaml"
    assert first.exists()
