"""An account of a mutant names the bytes, the operations and the choice that make it one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.explain.explain import explain
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing
from tests.harness.proving import plan_of

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(600),
]

DIGEST = "bytes with digest [0-9a-f]{16}"

EVENT_LOGS = [
    (
        "state:ForgetsGenerators",
        "sync/killed-in-publish-before-rename.yaml",
        [
            r"run 0: run0.kill-all-save2-publish-rename-1-before struck after \d+ operations:",
            r"rank 0 \(signal 9\): had finished step 4, was in save 2 \(step 4\), last did #\d+ "
            r"fsync of .staging-step_4 \(save 2, seal\)",
            r"ranks 0, 1 took step 2 from step_2: what `latest` names, the newest whole one",
            rf"first differing random stream: numpy, run 1 at its start \(step 2\), rank 0: "
            rf"{DIGEST}, expected {DIGEST}",
        ],
    ),
    (
        "state:ForgetsLoader",
        "resume/second-resume.yaml",
        [
            r"first differing sample: run 1, step 3, rank 0: saw sample 7, expected sample 55",
            r"first differing tensor: transformer.blocks.0.down.weight, run 1 after step 3, rank 0",
            r"acknowledged to the job as durable: steps 2, 4",
        ],
    ),
    (
        "state:DropsMoments",
        "freeze/freed-module-resumes-with-its-moments.yaml",
        [
            r"first differing moment: adapter.down.weight.exp_avg, run 1 at its start \(step 4\), "
            rf"rank 0: not there, expected {DIGEST}",
        ],
    ),
    (
        "publishing:NeverSyncs",
        "sync/killed-in-publish-after-latest.yaml",
        [
            r"made so by run 0, rank 0: #\d+ rename of .latest.new -> latest \(save 1, publish\)",
            r"not durable then: .*the name of .staging-step_2/__0_0.distcp \(rank 0, #\d+\)",
        ],
    ),
    (
        "publishing:WritesInPlace",
        "sync/killed-in-flush-all-ranks.yaml",
        [
            r"\d+ bytes of step_4/__0_0.distcp \(rank 0, #\d+ to #\d+\)",
            r"step_4: torn: .metadata is missing; train_state.pt is missing",
        ],
    ),
    (
        "resting:VerifiesNothing",
        "at_rest/shards-of-two-saves-swapped.yaml",
        [
            r"operator: swap step_6/__0_0.distcp, step_4/__0_0.distcp",
            r"step_6: damaged by an operator: step_6/__0_0.distcp had been changed or removed",
            r"ranks 0, 1 took step 6 from step_6: what `latest` names, which is not whole",
            r"first differing tensor: transformer.blocks.0.down.weight, run 1 at its start",
        ],
    ),
    (
        "follows_latest:FollowsLatestOnly",
        "at_rest/latest-is-not-what-it-was.yaml::absent",
        [
            r"`latest`: not there",
            r"ranks 0, 1 took a fresh start: although step 4 is whole",
        ],
    ),
]


@pytest.mark.parametrize(
    ("bug", "scenario", "facts"), EVENT_LOGS, ids=[one[0] for one in EVENT_LOGS]
)
def test_the_story_has_the_facts_of_the_bug(
    bug: str, scenario: str, facts: list[str], services: Services, tmp_path: Path
) -> None:
    evidence = execute(plan_of(scenario, f"tests.mutants.{bug}"), tmp_path / "run", services)

    described = " ".join(explain(evidence).split())

    assert [fact for fact in facts if re.search(fact, described) is None] == [], described
