"""The built-in training job."""

from harness.jobs.job import Job
from harness.plan.model import DEFAULT_JOB
from harness.words import EvidenceKind

TRAINING = Job(
    name=DEFAULT_JOB,
    gives=frozenset(EvidenceKind),
    main="harness.jobs.training.rank:enter",
    inspection="harness.jobs.training.inspection:inspect",
)
