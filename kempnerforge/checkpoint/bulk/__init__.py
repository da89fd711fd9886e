"""Tensors on their way to disk and back: plans, staging, writing, reading."""
