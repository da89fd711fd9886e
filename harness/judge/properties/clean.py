"""`clean`: nothing outlives a run.

The promise: no process, thread, port, temporary file or lock outlives a run.

Evidence: the processes that outlived their rank in any run, the threads that a rank still had when
its loop had ended, and, if the last run ended in order, the names in the checkpoint directory. Only
the layout's own names can be there, and foreign names that an operator created. If the directory is
mounted, an empty `.lock` can stay: it is locked if a directory cannot be, and removing it would be
a race. The directory is empty before the first run. A directory that was left behind when the job
was moved elsewhere must not change. Not counted: a process that was killed and that the kernel is
still taking down; a thread with a name that also survives in the reference, which saves nothing,
because libraries of the training leave such threads; and threads that a library keeps once per
process, such as tqdm's monitor, which belong to whatever made them first, and come and go with its
timing. Names that Python gives (`Thread-3`) identify nothing and excuse nothing.

Never unknown: only what is seen counts as left. Not covered: ports, files outside of the checkpoint
directory, names in it after a run that did not end in order (the next run must clear them), and
threads of a rank whose operation was made to hang or to outlast the manager's deadline.
"""

from __future__ import annotations

import hashlib

from harness.evidence.evidence import DirectoryEntry, Evidence
from harness.evidence.record import Finished
from harness.judge.event_logs import EventLog, is_orderly, records
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="clean",
    sentence="No process, thread, port, temporary file or lock outlives a run.",
    outcome=Outcome.LEAK,
    uses=(EvidenceKind.TREE, EvidenceKind.ENDS, EvidenceKind.REFERENCE),
)


_LOCK = ".lock"
_EMPTY = DirectoryEntry(kind="file", detail=hashlib.blake2b(b"", digest_size=16).hexdigest())
_NAMED_BY_PYTHON = ("Thread-", "ThreadPoolExecutor-")
# One per process: tqdm's, which torch.compile starts if tqdm is installed, and jemalloc's.
_OF_THE_PROCESS = frozenset({"tqdm_monitor", "jemalloc_bg_thd"})


def judge(evidence: Evidence, history: History) -> Verdict:
    """Look for leftovers of each kind."""
    leftovers: list[str] = []
    of_training = {
        name
        for event_log in evidence.reference
        for name in _threads(event_log)
        if not name.startswith(_NAMED_BY_PYTHON)
    }
    for number, run in enumerate(evidence.runs):
        leftovers += [f"run {number}: process {one} outlived it" for one in run.processes.leaked]
        stuck = _stuck_ranks(evidence, number)
        # Only the reference shows which threads belong to the training.
        for rank, event_log in enumerate(run.event_logs if evidence.reference else ()):
            if rank in stuck:
                continue  # the kernel does not let go of a thread whose operation never returns
            leftovers += [
                f"run {number}, rank {rank}: thread {one} is left"
                for one in _threads(event_log)
                if one not in of_training | _OF_THE_PROCESS
            ]
    if history.layout.is_closed and is_orderly(evidence.runs[-1]):
        names = {path.partition("/")[0] for path in evidence.runs[-1].after} - {"."}
        strange = sorted(name for name in names if not history.layout.owned(name))
        leftovers += [
            f"{name} is left in the checkpoint directory"
            for name in strange
            if not _is_foreign(name, history) and not _is_lock(name, evidence)
        ]
    leftovers += _touched_behind(evidence)
    return PROMISE.verdict([Finding(detail=one) for one in leftovers])


def _threads(event_log: EventLog) -> list[str]:
    """Returns the names of the threads that a rank ended with."""
    return [name for record in records(event_log, Finished) for name in record.threads]


def _is_lock(name: str, evidence: Evidence) -> bool:
    """Whether it is the empty file of a lock, if directories cannot be locked."""
    entry = evidence.runs[-1].after[name]
    return bool(evidence.plan.hosts) and (name, entry) == (_LOCK, _EMPTY)


def _is_foreign(name: str, history: History) -> bool:
    """Whether an operator put it there, under this name or another."""
    top = history.tops[-1].get(name)
    return top is not None and top[0] in history.left.foreign


def _touched_behind(evidence: Evidence) -> list[str]:
    """Returns changes in the directory that the job had left for another."""
    changes: list[str] = []
    behind: dict[str, DirectoryEntry] | None = None
    for number, run in enumerate(evidence.runs):
        at_rest = evidence.at_rest.get(number)
        if at_rest is not None and any(one.action == "relocate" for one in at_rest.done):
            behind = at_rest.behind
        if behind is not None and run.behind != behind:
            path = min(path for path, _ in run.behind.items() ^ behind.items())
            changes.append(f"run {number}: {path} changed in the directory that was left behind")
    return changes


def _stuck_ranks(evidence: Evidence, number: int) -> set[int]:
    """Returns the ranks with an operation that never returned, or too late to be of use."""
    return {
        rank
        for strike in evidence.plan.runs[number].strikes
        if strike.fault.stalls(evidence.plan.timeout_s)
        for rank in strike.ranks
    }
