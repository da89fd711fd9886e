"""Correct managers are not accused for what a mount does, or for living on another host."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.run.services import Services
from harness.run.support import missing_for
from tests.harness.proving import plan_of, prove
from tests.mutants.catalogue import CONTROLS

_SCENARIOS = (
    "two_hosts/taken-over-by-another-host.yaml",
    "mounts/feature-is-missing.yaml::exchangefalse_flockrefused",
    "mounts/past-the-page-cache.yaml::directkept",
)
"""Those that ask of a manager only to save and to resume: no lock, no look at what is old."""


@pytest.mark.parametrize("scenario", _SCENARIOS)
@pytest.mark.parametrize("manager", CONTROLS[:1])
def test_a_correct_manager_comes_through(
    manager: str, scenario: str, services: Services, tmp_path: Path
) -> None:
    plan = plan_of(scenario, manager)
    if (reason := missing_for(plan)) is not None:
        pytest.skip(reason)

    judgement = prove(plan, tmp_path, services)

    failed = [(one.name, one.details) for one in judgement.guards if not one.passed]
    seen = [(one.property, one.details) for one in judgement.verdicts if one.state == "violated"]
    assert (judgement.outcome, failed, seen) == ("PASS", [], [])
