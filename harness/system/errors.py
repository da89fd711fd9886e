"""Errors of the harness itself, as opposed to the job that it runs."""

from __future__ import annotations


class HarnessError(Exception):
    """The harness could not do its work; this says nothing about the checkpointer."""
