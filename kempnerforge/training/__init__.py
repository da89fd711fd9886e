"""Helpers for training loops whose effect checkpoints record."""
