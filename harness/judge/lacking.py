"""Determines the evidence that a job cannot give."""

from __future__ import annotations

from collections.abc import Iterable

from harness.evidence.evidence import Evidence
from harness.jobs.registry import job_named
from harness.words import EvidenceKind


def lacks(evidence: Evidence, kinds: Iterable[EvidenceKind]) -> tuple[EvidenceKind, ...]:
    """Returns those of the kinds that the job of the scenario cannot give."""
    gives = job_named(evidence.plan.job).gives
    return tuple(kind for kind in kinds if kind not in gives)
