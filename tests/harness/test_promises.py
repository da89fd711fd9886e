"""What an implementation promises, and what follows from it for scenarios and verdicts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.judge.properties import PROMISES
from harness.judge.verdict import Finding, Promise, Verdict
from harness.plan.asked import not_promised
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.promises import (
    ALL,
    DOCUMENTED,
    PARTS,
    PromiseError,
    describe_promises,
    parse_promises,
)
from harness.run.services import Services
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file, read_scenario
from harness.scenario.schema import Expect
from harness.search.scenarios import lacking
from harness.trial import Bench
from harness.workspace import Workspace
from tests.harness.judge.cases import Case, correct
from tests.harness.proving import ROOT

RULE = Promise(name="bounded", sentence="Nobody waits.", outcome=Outcome.HANG)


def test_words_add_up_from_left_to_right() -> None:
    assert parse_promises("all") == ALL
    assert parse_promises("documented, power_cuts") == tuple(sorted((*DOCUMENTED, "power_cuts")))
    assert "errors" not in parse_promises("all,-errors")
    assert "errors" in parse_promises("-errors,all")
    assert parse_promises("nothing") == ()


@given(st.sets(st.sampled_from(ALL)))
def test_what_is_described_is_read_back(promises: set[str]) -> None:
    assert parse_promises(describe_promises(promises)) == tuple(sorted(promises))


@pytest.mark.parametrize("text", ["nonsense", "-nonsense", "all,--errors"])
def test_an_unknown_word_is_refused_and_the_possible_ones_are_listed(text: str) -> None:
    with pytest.raises(PromiseError, match=r"is no promise; possible: all, documented, .*errors"):
        parse_promises(text)


def test_every_part_is_asked_of_some_default_scenario_or_marks_some_finding() -> None:
    asked = {reason for reason in _reasons(Implementation(promises=())).values() if reason}
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "harness/judge").rglob("*.py")
    )
    for part in PARTS:
        assert f'"{part}"' in source or any(part in reason for reason in asked), part


def test_every_part_stands_in_the_document() -> None:
    document = (ROOT / "docs/properties.md").read_text(encoding="utf-8")
    section = document.partition("## Promises")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)
    assert dict(rows) == PARTS


def test_ours_is_asked_everything_and_the_documented_api_less() -> None:
    assert set(_reasons(Implementation()).values()) == {None}
    documented = _reasons(Implementation(promises=DOCUMENTED))
    asked = {name for name, reason in documented.items() if reason is None}
    assert {"sync/killed-in-flush-all-ranks.yaml", "baseline/vision-language-model.yaml"} <= asked
    for folder in ("power", "two_jobs", "mounts", "two_hosts"):
        assert not [name for name in asked if name.startswith(f"{folder}/")], folder
    assert "not promised by" in str(documented["layouts/one-stage-becomes-two.yaml"])
    assert "other_stages" in str(documented["layouts/one-stage-becomes-two.yaml"])
    interleaved = documented["layouts/stages-become-others.yaml::pp2_scheduleinterleaved"]
    assert "other_stages" in str(interleaved), "as many stages, with other layers in each"


def _reasons(implementation: Implementation) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for path in sorted((ROOT / "scenarios").rglob("*.yaml")):
        for label, one in read_file(path, gpus=0).items():
            assert not isinstance(one, ScenarioError)
            plan = make_plan(one.scenario, source=str(path), implementation=implementation)
            name = path.relative_to(ROOT / "scenarios").as_posix()
            reason = not_promised(plan, one.scenario.explore)
            found[f"{name}::{label}" if label else name] = reason
    return found


def _violated() -> Verdict:
    return RULE.violated(
        [Finding(detail="it waits", part="deadlines"), Finding(detail="it hangs by itself")]
    )


def test_a_finding_against_a_part_that_is_not_promised_is_listed_and_not_red() -> None:
    verdict = _violated().within(["bounded"])
    assert (verdict.state, verdict.details) == ("violated", ("it hangs by itself",))
    assert verdict.left_out() == "not promised: bounded (deadlines): it waits"
    only = RULE.violated([Finding(detail="it waits", part="deadlines")]).within(["bounded"])
    assert (only.state, only.outcome, only.is_red()) == ("not_promised", Outcome.PASS, False)
    assert only.left_out() == "not promised: bounded (deadlines): it waits"


def test_with_the_part_promised_nothing_is_spared() -> None:
    assert _violated().within(["bounded", "deadlines"]) == _violated()


@pytest.mark.parametrize("verdict", [_violated(), RULE.holds(), RULE.unknown("no evidence")])
def test_a_property_that_is_not_promised_is_never_red(verdict: Verdict) -> None:
    found = verdict.within(["clean"])
    assert (found.state, found.outcome) == ("not_promised", Outcome.PASS)
    assert str(found.left_out()).startswith("not promised: bounded")


def test_what_does_not_apply_stays_so() -> None:
    verdict = RULE.does_not_apply("nothing is saved")
    assert verdict.within([]) == verdict


def _torn_before_latest() -> Case:
    """A save that writes into a directory with a checkpoint's name, and names it when whole."""
    case = correct()
    case.runs[0].do("mkdir", "step_9")
    return case


def test_a_checkpoint_that_latest_does_not_name_yet_must_only_be_whole_if_that_is_promised() -> (
    None
):
    evidence = _torn_before_latest().evidence()
    assert "whole_or_absent" in judge(evidence).broken
    plan = evidence.plan.model_copy(update={"implementation": Implementation(promises=DOCUMENTED)})
    found = {one.property: one for one in judge(replace(evidence, plan=plan)).verdicts}
    assert found["whole_or_absent"].state == "not_promised"
    assert any(one.part == "every_instant" for one in found["whole_or_absent"].spared)
    assert set(found) == set(PROMISES)


def test_a_drawn_scenario_that_is_not_promised_is_skipped_with_the_reason(tmp_path: Path) -> None:
    scenario = read_scenario(ROOT / "scenarios/two_jobs/second-job-between-saves.yaml")
    workspace = Workspace(root=tmp_path / "runs", failures=tmp_path / "failures")
    for promises, expected in ((DOCUMENTED, "not promised by "), (ALL, "None")):
        implementation = Implementation(promises=promises)
        bench = Bench(
            services=Services(tmp_path), workspace=workspace, implementation=implementation, gpus=0
        )
        assert str(lacking(bench, scenario)).startswith(expected)


@pytest.mark.parametrize(("fails", "part"), [(True, "later_saves"), (False, None)])
def test_a_step_that_was_expected_rests_on_later_saves_if_a_save_failed(
    fails: bool, part: str | None
) -> None:
    case = correct()
    case.expect = Expect(resumed_from_step=8)
    if fails:
        case.runs[0].fail("save")
    (verdict,) = [one for one in judge(case.evidence()).verdicts if one.property == "nothing_lost"]
    (finding,) = [one for one in verdict.findings if "older than the expected" in one.detail]
    assert finding.part == part


def test_the_outcome_is_the_worst_of_what_counts() -> None:
    verdict = RULE.violated(
        [
            Finding(detail="it waits", part="deadlines"),
            Finding(detail="it says something else", outcome=Outcome.HARD_FAIL),
        ]
    )
    assert verdict.outcome is Outcome.HANG
    assert verdict.within(["bounded"]).outcome is Outcome.HARD_FAIL
