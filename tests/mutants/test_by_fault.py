"""Each kind of fault shows a mutant, and a weaker fault does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.faults.registry import KINDS
from harness.faults.strike import Strike
from harness.plan.model import Plan
from harness.run.services import Services
from harness.run.support import missing_for
from tests.harness.proving import plan_of, prove
from tests.harness.strikes import strike
from tests.mutants.by_fault import BY_FAULT, WEAKER, Weaker
from tests.mutants.catalogue import REFUSALS, Mutant
from tests.mutants.entry import fenced

_DEADLINE_S = 12.0
"""As in `test_mutants`: a hang is one here much sooner than in a scenario."""


def _name(bug: Mutant) -> str:
    return f"{bug}-{bug.scenario.partition('.')[0]}"


@pytest.mark.parametrize("bug", [fenced(bug, scenario=bug.scenario) for bug in BY_FAULT], ids=_name)
def test_the_fault_shows_the_bug(bug: Mutant, services: Services, tmp_path: Path) -> None:
    deadline_s = _DEADLINE_S if bug.outcome == "HANG" else None
    plan = plan_of(bug.scenario, bug.implementation, deadline_s=deadline_s)
    if (reason := missing_for(plan)) is not None:
        pytest.skip(reason)

    judgement = prove(plan, tmp_path, services)

    violated = {one.property: one.details for one in judgement.verdicts if one.state == "violated"}
    violated |= {
        one.name: one.details for one in judgement.guards if one.name in REFUSALS and not one.passed
    }
    caught = {bug.violates} <= violated.keys() if bug.violates else not violated
    failed = [(one.name, one.details) for one in judgement.guards if not one.passed]
    assert (caught, judgement.outcome) == (True, bug.outcome), (violated, failed)


@pytest.mark.parametrize("weaker", WEAKER, ids=str)
def test_a_weaker_fault_does_not_show_it(
    weaker: Weaker, services: Services, tmp_path: Path
) -> None:
    plan = plan_of(weaker.scenario, f"tests.mutants.{weaker.manager}")
    if (reason := missing_for(plan)) is not None:
        pytest.skip(reason)

    judgement = prove(_lessened(plan, weaker), tmp_path, services)

    seen = [(one.property, one.details) for one in judgement.verdicts if one.is_red()]
    failed = [(one.name, one.details) for one in judgement.guards if not one.passed]
    assert (judgement.outcome, seen, failed) == ("PASS", [], [])


def _lessened(plan: Plan, weaker: Weaker) -> Plan:
    """The plan with weaker strikes; where it then resumes from is no longer told."""
    if not weaker.less:
        return plan
    runs = tuple(
        run.model_copy(update={"strikes": tuple(_weaker(one, weaker.less) for one in run.strikes)})
        for run in plan.runs
    )
    expect = plan.expect.model_copy(update={"resumed_from_step": None})
    return plan.model_copy(update={"runs": runs, "expect": expect})


def _weaker(one: Strike, less: Mapping[str, Any]) -> Strike:
    """Settings that both faults have stay as they were."""
    word, ranks = less.get("fault", one.fault.word), less.get("ranks", one.ranks)
    known = next(kind for kind in KINDS if kind.word == word).model_fields[word].annotation
    assert known is not None
    fields = known.model_fields
    kept = {key: value for key, value in one.fault.settings.model_dump().items() if key in fields}
    kept.pop("rank", None)
    says = kept | {key: value for key, value in less.items() if key not in ("fault", "ranks")}
    point = one.point.model_dump(exclude_defaults=True)
    return strike(word, says, ranks=ranks, name=one.id, **point)


def test_every_bug_was_tried_with_a_weaker_fault() -> None:
    assert {bug.manager for bug in BY_FAULT} <= {one.manager for one in WEAKER}
