"""A user without root tests a command, where the kernel gives user namespaces to every user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.run import support

ROOT = Path(__file__).parents[3]
AS_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
"""Of root, a user without any privileges, who may still read what is root's."""


def as_user(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    before = AS_USER if os.geteuid() == 0 else ()
    return subprocess.run(
        [*before, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_command_is_tested_without_root(tmp_path: Path) -> None:
    kernel = as_user("unshare", "--user", "--map-current-user", "--mount", "true", cwd=tmp_path)
    if kernel.returncode:
        pytest.skip(f"no user namespaces for every user: {kernel.stderr}")
    script = Path(__file__).with_name("train.py")
    done = as_user(
        sys.executable, "-m", "harness", "try", "--budget", "240", "--states", "6", "--",
        sys.executable, str(script), "{dir}", "in place", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "forked from a process that has imported" in done.stdout
    assert "JSONDecodeError" in done.stdout
    assert re.search(r"^6 of \d+ states tried", done.stdout, re.MULTILINE)


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.setattr(support, "_try_mounts", lambda _: "unshare: Operation not permitted")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert support.missing_mounts.__wrapped__() == (
        "each start needs mounts of its own, which need root, or a kernel that gives user "
        "namespaces to every user (user.max_user_namespaces above 0, "
        "kernel.apparmor_restrict_unprivileged_userns, where there is one, 0): "
        "unshare: Operation not permitted"
    )
