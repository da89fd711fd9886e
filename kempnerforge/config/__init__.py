"""Configuration that a training loop passes to the checkpoint and freeze code."""
