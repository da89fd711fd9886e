"""The built-in training job."""

from harness.jobs.job import WORDS, Job

TRAINING = Job(name="training", tells=WORDS, main="harness.jobs.training.rank:enter")
