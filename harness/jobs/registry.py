"""The jobs, by the names that plans use."""

from __future__ import annotations

from harness.jobs.job import Job
from harness.jobs.training import TRAINING
from harness.plan.model import COMMAND_JOB, PROBED_JOB
from harness.words import EvidenceKind

COMMAND = Job(
    name=COMMAND_JOB,
    gives=frozenset({EvidenceKind.TREE}),
    main="harness.jobs.command.entering:enter_program",
)
"""A command of the user's own; a server of its own enters its ranks, with their programs."""

PROBED = Job(
    name=PROBED_JOB,
    gives=frozenset(EvidenceKind) - {EvidenceKind.ENDS},
    main=COMMAND.main,
)
"""The same with the calls of `harness.probe`."""

JOBS = {job.name: job for job in (TRAINING, COMMAND, PROBED)}


def job_named(name: str) -> Job:
    """Returns the job of this name. Raises KeyError for any other."""
    return JOBS[name]
