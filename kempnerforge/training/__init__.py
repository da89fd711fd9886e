"""Helpers of a training loop that checkpoints depend on."""
