"""One model of a disk under a job, and one replay of what was done to it."""
