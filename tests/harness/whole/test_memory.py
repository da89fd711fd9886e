"""A job may write more than the workbench has memory for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory import MB, measure, writing_job
from harness.run.services import Services
from harness.run.support import missing

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(600),
]


def test_what_a_job_writes_is_never_in_memory_as_a_whole(
    services: Services, tmp_path: Path
) -> None:
    plan = writing_job(dim=512, layers=2, saves=4)

    written, phases = measure(plan, tmp_path / "run", services)

    assert written > 190 * MB
    assert {one.name: one.peak_mb for one in phases if one.peak_mb > 64} == {}
