"""`step-N` folders without a pointer, written by real jobs, killed, resumed and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.crash.explore import explore
from harness.judge.judge import judge
from harness.layouts.registry import LAYOUTS
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing
from harness.scenario.schema import Scenario
from tests.harness.proving import ROOT

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

MOST = 32
"""An eighth of what a user gets: states of an instant that are looked at."""
LAYOUT = LAYOUTS["dcp_steps"]
CORRECT = "tests.harness.layouts.step_manager:StepManager"
KILLED = {"kill": {"rank": 0}, "at": {"save": 2, "phase": "flush", "operation": "write"}}
BEFORE_PUBLISH = {"kill": {"rank": 0}, "at": {"save": 2, "phase": "publish"}}


def plan_of(manager: str, **changes: object) -> Plan:
    """Two starts of two ranks; the first is struck as `faults` say."""
    faults = changes.get("faults", ())
    scenario = Scenario.model_validate(
        {
            "name": "layouts: step-N folders",
            "world": {"dp_shard": 2},
            "runs": ({"until_step": 6, "faults": faults}, {"until_step": 8}),
            "expect": {"resumed_from_step": changes.get("resumed", 2)},
        }
    )
    chosen = Implementation(name=manager, path=str(ROOT), layout=LAYOUT.name)
    return make_plan(scenario, source="", implementation=chosen)


def states(manager: str, directory: Path, services: Services, **changes: object) -> dict[str, str]:
    """The outcome, what each property came to, and what power cuts at any instant would come to."""
    evidence = execute(plan_of(manager, **changes), directory / "run", services)
    found = judge(evidence)
    told = {one.property: one.state for one in found.verdicts}
    return {
        "outcome": str(found.outcome),
        "cuts": str(explore(evidence, most=MOST).outcome),
        **told,
    }


def test_a_clean_stop_and_resume_passes(tmp_path: Path, services: Services) -> None:
    found = states(CORRECT, tmp_path, services, resumed=6)
    assert found["outcome"] == "PASS"
    assert found["whole_or_absent"] == "holds"
    assert found["latest_durable"] == "does_not_apply"
    assert found["cuts"] == "PASS"
    assert sorted(one.name for one in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-6",
        "step-8",
    ]


@pytest.mark.parametrize("fault", [KILLED, BEFORE_PUBLISH], ids=["flush", "publish"])
def test_a_kill_in_mid_save_passes_with_a_correct_manager(
    tmp_path: Path, services: Services, fault: object
) -> None:
    found = states(CORRECT, tmp_path, services, faults=(fault,))
    assert (found["outcome"], found["cuts"]) == ("PASS", "PASS")


def test_metadata_that_is_written_first_is_caught(tmp_path: Path, services: Services) -> None:
    manager = "tests.harness.layouts.metadata_first:MetadataFirst"
    found = states(manager, tmp_path, services, faults=(KILLED,))
    assert found["outcome"] == "HARD_FAIL"
    assert found["whole_or_absent"] == "violated"
    assert found["cuts"] == "HARD_FAIL"


def test_a_torn_folder_that_is_loaded_is_caught(tmp_path: Path, services: Services) -> None:
    manager = "tests.harness.layouts.torn_loaded:TornLoaded"
    found = states(manager, tmp_path, services, faults=(KILLED,))
    assert found["outcome"] == "HARD_FAIL"
    assert found["whole_or_absent"] == "holds"
    assert found["nothing_lost"] == "violated"
