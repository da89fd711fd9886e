"""Evidence as a job leaves it that cannot give one kind of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from harness.evidence.evidence import AtRest, Evidence, RunEvidence
from harness.evidence.record import (
    Drained,
    Entered,
    Evaluated,
    Finished,
    Raised,
    Record,
    Refused,
    Resumed,
    SaveBegan,
    SaveReturned,
    StateDigest,
    Stepped,
)
from harness.jobs.job import Job
from harness.jobs.registry import JOBS
from harness.words import EvidenceKind

_NO_STATE = StateDigest(params={}, moments={}, rng={})
_TOLD_BY = {
    Resumed: EvidenceKind.RESUMES,
    Refused: EvidenceKind.RESUMES,
    SaveBegan: EvidenceKind.ACKNOWLEDGEMENTS,
    SaveReturned: EvidenceKind.ACKNOWLEDGEMENTS,
    Drained: EvidenceKind.ACKNOWLEDGEMENTS,
    Stepped: EvidenceKind.TRAINING,
    Evaluated: EvidenceKind.TRAINING,
    Entered: EvidenceKind.ENDS,
    Finished: EvidenceKind.ENDS,
}
_RAISED_DURING = {
    "load": EvidenceKind.RESUMES,
    "save": EvidenceKind.ACKNOWLEDGEMENTS,
    "wait": EvidenceKind.ACKNOWLEDGEMENTS,
    "flush_pending_save": EvidenceKind.ACKNOWLEDGEMENTS,
}


def job_without(kind: EvidenceKind) -> Job:
    """A job, which is in no registry, that gives all but one kind of evidence."""
    return Job(name=f"without {kind}", gives=frozenset(EvidenceKind) - {kind}, main="")


@contextmanager
def known_jobs(*more: Job) -> Iterator[None]:
    """Those jobs, or the given ones, are in the registry for a time."""
    jobs = more or tuple(job_without(kind) for kind in EvidenceKind)
    names = {one.name: one for one in jobs}
    JOBS.update(names)
    yield
    for name in names:
        del JOBS[name]


def without(evidence: Evidence, kind: EvidenceKind) -> Evidence:
    """The evidence without all that is of one kind."""
    return dataclasses.replace(
        evidence,
        reference=() if kind is EvidenceKind.REFERENCE else _stories(evidence.reference, kind),
        runs=tuple(_run(run, kind) for run in evidence.runs),
        at_rest={number: _at_rest(one, kind) for number, one in evidence.at_rest.items()},
        plan=evidence.plan.model_copy(update={"job": job_without(kind).name}),
    )


def _run(run: RunEvidence, kind: EvidenceKind) -> RunEvidence:
    described = dataclasses.replace(
        run, event_logs=_stories(run.event_logs, kind), second=_stories(run.second, kind)
    )
    if kind is not EvidenceKind.TREE:
        return described
    return dataclasses.replace(
        described, operations=(), written=b"", after={}, behind={}, unseen=(), cut=None
    )


def _at_rest(at_rest: AtRest, kind: EvidenceKind) -> AtRest:
    if kind is not EvidenceKind.TREE:
        return at_rest
    done = tuple(dataclasses.replace(one, operations=()) for one in at_rest.done)
    return dataclasses.replace(at_rest, done=done, written=b"", after={}, behind={})


def _stories(
    event_logs: tuple[tuple[Record, ...], ...], kind: EvidenceKind
) -> tuple[tuple[Record, ...], ...]:
    return tuple(
        tuple(_bared(one, kind) for one in event_log if _kind_of(one) is not kind)
        for event_log in event_logs
    )


def _kind_of(record: Record) -> EvidenceKind | None:
    if isinstance(record, Raised):
        return _RAISED_DURING.get(record.during, EvidenceKind.ENDS)
    return _TOLD_BY.get(type(record))


def _bared(record: Record, kind: EvidenceKind) -> Record:
    """A resume without the state, which only a job that can digest it gives."""
    if isinstance(record, Resumed) and kind is EvidenceKind.TRAINING:
        return dataclasses.replace(record, state=_NO_STATE, frozen=(), kept=None, beside={})
    return record
