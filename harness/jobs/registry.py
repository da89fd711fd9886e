"""The jobs, by the names that plans use."""

from __future__ import annotations

from harness.jobs.job import Job
from harness.jobs.training import TRAINING

JOBS = {job.name: job for job in (TRAINING,)}


def job_named(name: str) -> Job:
    """Returns the job of this name. Raises KeyError for any other."""
    return JOBS[name]
