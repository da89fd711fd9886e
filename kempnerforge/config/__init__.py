"""Configuration values that a training loop hands to the checkpoint and freeze code."""
