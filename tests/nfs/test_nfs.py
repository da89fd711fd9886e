"""Real NFS, v3 and v4.2, each rank with a mount of its own.

It takes some minutes, so it runs where it is asked for: ``pytest -m long tests/nfs``.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.nfs.machine import missing, run_inside

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

VERSIONS = pytest.mark.parametrize("version", ["v3", "v4"])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each check found; an exception is told as its text."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return run_inside(tmp_path_factory.mktemp("machine"))


@VERSIONS
@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_two_hosts_save_replace_retire_and_resume(
    found: dict[str, Any], version: str, mode: str
) -> None:
    assert found[f"saves-{mode}-{version}"] == [[3, True, ["latest", "step_2", "step_3"]]] * 2


@pytest.mark.parametrize("kind", ["v3", "v4", "nolock"])
def test_a_second_job_on_another_host_is_refused_until_the_first_has_ended(
    found: dict[str, Any], kind: str
) -> None:
    said, *names, later = found[f"second-job-{kind}"]
    assert said.startswith("DirectoryInUseError: ")
    assert "/mnt/here/checkpoints is in use by another job: process " in said
    assert names == ["latest", "step_1"]
    assert later == "None"


@VERSIONS
def test_a_host_that_looked_a_moment_ago_resumes_from_the_newest(
    found: dict[str, Any], version: str
) -> None:
    assert found[f"stale_view-{version}"] == [1, 2]
    assert found[f"follows-{version}"] == [["1", "2"], ["1", "2"]]


ERRORS = {
    "full": r"rank \d: OSError: \[Errno 28\] No space left on device: '/mnt/here/checkpoints/\.st",
    "read_only": r"rank 0: OSError: \[Errno 30\] Read-only file system: '/mnt/here/checkpoints/",
    "squashed": r"rank 0: PermissionError: \[Errno 13\] Permission denied: '/mnt/here/checkpoints/",
    "server_stops": r"rank 0: StorageTimeoutError: .* in /mnt/here/checkpoints did not finish",
}


@VERSIONS
@pytest.mark.parametrize("kind", ERRORS)
def test_what_the_server_refuses_is_the_same_error_on_all_ranks_and_the_next_save_works(
    found: dict[str, Any], version: str, kind: str
) -> None:
    one, other = found[f"{kind}-{version}"]
    assert one == other
    said, mended, names = one
    assert re.search(ERRORS[kind], said), said
    assert (mended, names) == ("None", ["latest", "step_1", "step_3"])
