"""The built-in training job."""

from harness.jobs.job import Job
from harness.words import EvidenceKind

TRAINING = Job(
    name="training",
    gives=frozenset(EvidenceKind),
    main="harness.jobs.training.rank:enter",
    inspection="harness.jobs.training.inspection:inspect",
)
