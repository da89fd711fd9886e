"""What a job does with checkpoints over its life, on whatever its directory is mounted from.

Each returns what it has found out, so that a test can compare it in another process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.training import Job

_STEPS = 5


def live(one: Path, other: Path, **options: Any) -> dict[str, Any]:
    """Save, replace, retire, resume here and see all of it on the other host."""
    job = Job(one, rank=0, seed=1, keep_last_n=2, **options)
    for step in range(1, _STEPS):
        job.train(1)
        job.save(step)
    job.save(_STEPS - 1, again="yes")
    expected = job.digest()
    resumed = Job(one, rank=0, seed=2, keep_last_n=2, **options)
    step, tokens, extra = resumed.load()
    return {
        "steps": _steps(other),
        "latest": _latest(other),
        "resumes": Path(str(resolve_resume_path(str(one / "checkpoints")))).resolve().name,
        "loaded": (step, tokens, extra.get("again")),
        "same": resumed.digest() == expected,
        "hidden": sorted(name for name in _names(one) if name[0] == "." and _is_left(name)),
    }


def fail(one: Path, other: Path, **options: Any) -> dict[str, Any]:
    """Save twice where that may be refused, then see what a new start takes."""
    told = []
    try:
        job = Job(one, rank=0, seed=1, keep_last_n=2, **options)
        for step in (1, 2):
            job.train(1)
            told.append(_error_of(job, step))
    except Exception as error:  # noqa: BLE001 - what is raised is what the test is about
        told.append(f"{type(error).__name__}: {error}")
    return {"told": told, "steps": _steps(other)}


def join(one: Path, other: Path, **options: Any) -> dict[str, Any]:
    """A second job saves on the other host while the first one lives."""
    job = Job(one, rank=0, seed=1, **options)
    job.save(1)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            second = Job(other, rank=0, seed=2, commit_timeout_s=60.0, **options)
            os.write(writing, (_error_of(second, 7) or "saved").encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    job.save(2)
    return {"told": told, "steps": _steps(one)}


def _error_of(job: Job, step: int) -> str:
    try:
        job.save(step)
    except Exception as error:  # noqa: BLE001 - what is raised is what the test is about
        return f"{type(error).__name__}: {error}"
    return ""


def _names(root: Path) -> list[str]:
    folder = root / "checkpoints"
    return sorted(os.listdir(folder)) if folder.exists() else []


def _steps(root: Path) -> list[str]:
    return [name for name in _names(root) if name.startswith("step_")]


def _latest(root: Path) -> str:
    """What `latest` says, as a link or as a file; nothing where it is not there."""
    path = root / "checkpoints/latest"
    if path.is_symlink():
        return os.readlink(path)
    return path.read_text().strip() if path.exists() else ""


def _is_left(name: str) -> bool:
    """Whether a save should have taken a hidden name away; a lock and a lease stay for a while."""
    return not name.startswith((".lock", ".lease-"))
