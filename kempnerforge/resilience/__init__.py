"""Helpers for training loops: shutdown on a signal, and the checkpoint to resume from."""
