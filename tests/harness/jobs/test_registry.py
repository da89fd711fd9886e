"""Jobs are found by the name that a plan holds, and are values until a rank enters them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from harness.jobs.job import Job
from harness.jobs.registry import JOBS, job_named
from harness.plan.model import Plan
from harness.words import EvidenceKind
from tests.harness.jobs.drive import ROOT


def test_the_job_of_a_plan_that_names_none_is_the_built_in_one() -> None:
    assert job_named(Plan.model_fields["job"].default).name == "training"
    assert job_named("training").gives == set(EvidenceKind)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_names_a_function(job: Job) -> None:
    module, separator, name = job.main.partition(":")
    assert separator
    assert module.startswith("harness.jobs.")
    assert find_spec(module) is not None
    assert name.isidentifier()


def test_entering_runs_the_function_of_that_name() -> None:
    job = Job(name="mine", gives=frozenset(), main="os.path:join")
    assert job.enter("a", "b", "c") == "a/b/c"  # type: ignore[arg-type, comparison-overlap]


def test_the_registry_imports_nothing_of_what_runs_in_ranks() -> None:
    program = "import sys; from harness.jobs.registry import JOBS; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
