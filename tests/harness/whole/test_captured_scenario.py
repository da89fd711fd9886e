"""A directory that an operator broke, captured: the scenario shows the same bug, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.__main__ import main
from harness.evidence.evidence import BEFORE
from harness.evidence.store import ByteStore
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.run.at_rest import do_at_rest
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing
from harness.scenario.read import read_scenario
from tests.harness.proving import ROOT, plan_of, prove

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(600),
]


def break_and_capture(scenario: str, directory: Path, services: Services) -> Path:
    """Run the first run of a scenario, break its directory as the scenario does, and capture it."""
    plan = plan_of(scenario)
    actions = plan.runs[1].before
    first = plan.model_copy(update={"runs": plan.runs[:1]})
    evidence = execute(first, directory / "broken", services)
    root = directory / "broken" / "checkpoints"
    earlier, written = evidence.runs[0].operations, ByteStore(directory / BEFORE)
    found = do_at_rest(actions, root, earlier, written, plan.layout)
    assert [one.problem for one in found.done] == [None] * len(actions)
    file = directory / "captured.yaml"
    assert main(["capture", "--deep", str(root), "-o", str(file)]) == 0
    return file


@pytest.mark.parametrize(
    ("scenario", "bug", "outcome", "broken"),
    [
        (
            "at_rest/shards-of-two-saves-swapped.yaml",
            "resting:VerifiesNothing",
            "SILENT_DIVERGENCE",
            "integrity",
        ),
        (
            "at_rest/latest-is-not-what-it-was.yaml::absent",
            "follows_latest:FollowsLatestOnly",
            "LOST_WORK",
            "nothing_lost",
        ),
        ("at_rest/foreign-names.yaml", "any_name:TakesAnyName", "HARD_FAIL", "nothing_lost"),
    ],
)
def test_the_captured_scenario_shows_the_bug_and_the_package_passes(
    scenario: str, bug: str, outcome: str, broken: str, services: Services, tmp_path: Path
) -> None:
    file = break_and_capture(scenario, tmp_path, services)

    captured = read_scenario(file, gpus=0)
    wrong = Implementation(name=f"tests.mutants.{bug}", path=str(ROOT))
    plan = make_plan(captured, source=file.name, implementation=wrong)
    judgement = prove(plan, tmp_path / "wrong", services)
    violated = {one.property for one in judgement.verdicts if one.state == "violated"}
    assert judgement.outcome == outcome
    assert broken in violated

    plan = make_plan(captured, source=file.name, implementation=Implementation())
    judgement = prove(plan, tmp_path / "right", services)
    said = [(one.property, one.details) for one in judgement.verdicts if one.is_red()]
    assert (judgement.outcome, said) == ("PASS", [])
