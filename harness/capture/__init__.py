"""A checkpoint directory that broke, as a scenario."""
