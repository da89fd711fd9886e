"""Everything that a scenario left behind, and the run directory from which it is read.

A run directory holds `plan.json`, `checkpoints/` (the job's own directory), `reference/` and one
folder `run0`, `run1`, ... for each start of the job:

    rank0.jsonl ...   the records of each rank, and then of each rank of a second job
    rank0.log ...     its standard output and error
    trace.jsonl       the operations and the strikes that fired, in one total order
    written.bin       the bytes of all writes; equal ones of some size are stored once
    processes.json    how the processes ended, and what outlived them
    after.json        contents of the checkpoint directory when the run was over
    cut.json          its contents just before the power was cut, if it was
    before.json       the actions on the checkpoint directory before the run, if any
    before.bin        the bytes that those wrote
    result.json       what a command left, beside what the uninterrupted one leaves

A folder `changed1` holds what a reference of run 1 recorded that makes the same change of
arrangement as that run; it begins with the state of an earlier reference (`handed_over`).

If the plan begins with what earlier runs left, `given.json` and `given.bin` describe it, and the
folders of these runs hold their ranks' records until then, and no operation.

If the checkpoint directory was relocated, `checkpoints/` is the old one or gone, and the new one is
beside it. `executed/` holds one name for each hostile pickle whose code ran.

Bytes are read from the disk on demand: a run can have written more than fits in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.content import Bytes
from harness.evidence.operation import Fired, Operation
from harness.evidence.record import Record
from harness.plan.model import Plan

WRITTEN = "written.bin"
BEFORE = "before.bin"
GIVEN = "given.bin"
RESULT = "result.json"


def changed_folder(run: int) -> str:
    """Returns the name of the folder with the reference of a changed run."""
    return f"changed{run}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """How a run's processes ended.

    `exits` has one status for each rank: the exit code, or minus the signal. `hung` names the ranks
    still alive at the deadline. `leaked` lists the processes that outlived their rank, `stopped`
    the ranks that the launcher ended because another had died. `undelayed_s` is the run time
    without run-queue delay; `deadline_s` is how long, by that clock, the run could be silent.
    `second` has the exits of a second job's ranks, whose numbers follow those of the first; `cpu_s`
    is the processor time of all.
    """

    exits: tuple[int, ...]
    hung: tuple[int, ...]
    leaked: tuple[str, ...]
    stopped: tuple[int, ...]
    seconds: float
    undelayed_s: float
    deadline_s: float
    second: tuple[int, ...] = ()
    cpu_s: float = 0.0

    @property
    def slowed(self) -> float:
        """How many times longer the run took than it would have with processors of its own."""
        # If its processes did nothing but wait, the clock stood still, and nothing can be said.
        return max(1.0, self.seconds / max(self.undelayed_s, 1e-3))


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One name below the checkpoint directory, as found on disk after a run."""

    kind: str
    """`file`, `directory` or `symlink`."""
    detail: str
    """Digest of a file's bytes (BLAKE2b, 16 bytes), text of a symlink, empty for a directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The power cut that ended a run; what it left is the last operation of the trace."""

    filesystem: str
    journal: str
    """`lost` or `kept`."""
    how: str
    """How the power was cut, and what the file system answered afterwards."""
    before: dict[str, DirectoryEntry]
    """The contents of the checkpoint directory at that instant, synced or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """The files and step lines of one start of a command, beside those of the uninterrupted one.

    It is only compared if nothing struck and every rank ended in order. `differences` has a line
    for each file that differs, `not_judged` one for each question that nothing could answer.
    """

    is_compared: bool
    differences: tuple[str, ...]
    first_step: int | None
    other_line: str | None
    not_judged: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """One start of the job."""

    operations: tuple[Operation, ...]
    fired: tuple[Fired, ...]
    unseen: tuple[str, ...]
    """Events that may have changed files without being in the trace."""
    written: Bytes
    event_logs: tuple[tuple[Record, ...], ...]
    processes: Processes
    after: dict[str, DirectoryEntry]
    second: tuple[tuple[Record, ...], ...] = ()
    """The event logs of a second job, started while this one was alive."""
    behind: dict[str, DirectoryEntry] = field(default_factory=dict)
    """The contents of the directory that was left behind, when the run was over."""
    cut: Cut | None = None
    stacks: dict[int, str] = field(default_factory=dict)
    """The stacks that ranks wrote when they hung, by rank."""
    result: CommandResult | None = None
    """The result of a command; None for another job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An action that was done, or why it could not be: `problem` is None if it was.

    `paths` are the names that it hit. Its operations are recorded like those of a rank, as rank -1.
    """

    action_id: str
    action: str
    paths: tuple[str, ...]
    operations: tuple[Operation, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRest:
    """The actions on the checkpoint directory between two runs, all of them synced."""

    done: tuple[Done, ...]
    written: Bytes
    after: dict[str, DirectoryEntry]
    """The contents of the checkpoint directory afterwards."""
    behind: dict[str, DirectoryEntry] = field(default_factory=dict)
    """The contents of the directory that was left behind, at that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingDirectory:
    """The checkpoint directory that a plan began with, in the form of what a power cut left."""

    operation: Operation
    written: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A whole scenario: its plan, the reference run, and each run."""

    directory: str
    plan: Plan
    reference: tuple[tuple[Record, ...], ...]
    runs: tuple[RunEvidence, ...]
    at_rest: Mapping[int, AtRest] = field(default_factory=dict)
    """By the number of the next run."""
    given: StartingDirectory | None = None
    changed: Mapping[int, tuple[tuple[Record, ...], ...]] = field(default_factory=dict)
    """By run, the reference of one that continues another in another arrangement."""
    executed: tuple[str, ...] = ()
    """The actions whose hostile pickle ran its code."""
