"""A plan that begins with what earlier runs left, instead of an empty directory.

No supervisor watched these runs here, so their operations are unknown. The directory that they left
is listed from the disk, and belongs to the evidence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from harness.content import Content
from harness.evidence.cut import cut_operation, read_entries
from harness.evidence.evidence import GIVEN, Evidence, Processes, RunEvidence, StartingDirectory
from harness.evidence.operation import OPERATOR
from harness.evidence.record import Record
from harness.evidence.store import ByteStore
from harness.evidence.write import write_given, write_listing, write_past
from harness.plan.model import CHECKPOINTS
from harness.system.syscalls import syncfs

_UNKNOWN = -1
"""The place of a record without a supervisor."""

_NOBODY_WAITED = Processes(
    exits=(), hung=(), leaked=(), stopped=(), seconds=0.0, undelayed_s=0.0, deadline_s=0.0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """`fill` puts what the `past` runs left into the checkpoint directory, which is empty."""

    past: tuple[RunEvidence, ...]
    fill: Callable[[Path], None]


def earlier(run: RunEvidence) -> RunEvidence:
    """Returns a run before the last one: how it ended, and the records of its ranks."""
    event_logs = tuple(_placed(event_log, _UNKNOWN) for event_log in run.event_logs)
    return replace(run, operations=(), written=b"", after={}, event_logs=event_logs)


def cut_short(run: RunEvidence, place: int) -> RunEvidence:
    """Returns the last run as far as it had come after `place` operations; its end is not observed.

    All records that its ranks had written by then precede the found directory.
    """
    event_logs = tuple(
        _placed([one for one in event_log if one.index <= place], 0) for event_log in run.event_logs
    )
    return replace(
        earlier(run),
        event_logs=event_logs,
        fired=tuple(one for one in run.fired if one.index <= place),
        processes=_NOBODY_WAITED,
        cut=None,
    )


def _placed(event_log: Iterable[Record], place: int) -> tuple[Record, ...]:
    return tuple(replace(record, index=place) for record in event_log)


def begin(beginning: Beginning, directory: Path, *, disk: str | None) -> None:
    """Fill the checkpoint directory of a prepared run directory, and record what is there.

    `disk` is the file system whose power will be cut, if any: that must not lose any of this.
    """
    root = directory / CHECKPOINTS
    beginning.fill(root)
    if disk is not None:
        syncfs(str(root))
    with closing(ByteStore(directory / GIVEN)) as written:
        listing = cut_operation(
            read_entries(root, written), written, index=-1, rank=OPERATOR, time_s=0.0
        )
        written.flush()
    write_given(directory, listing)
    for number, run in enumerate(beginning.past):
        folder = directory / f"run{number}"
        folder.mkdir()
        write_past(folder, run)
    write_listing(folder, root)


def beginning_of(evidence: Evidence) -> Beginning | None:
    """Returns the beginning of what was run, to run it again; None if it began with nothing."""
    given = evidence.given
    if given is None:
        return None
    past = evidence.runs[: evidence.plan.past]
    return Beginning(past=past, fill=lambda root: _put_back(given, root))


def _put_back(given: StartingDirectory, root: Path) -> None:
    start = given.operation.data or 0
    for path, kind, detail in json.loads(given.written[start : start + given.operation.size]):
        if kind == "directory":
            (root / path).mkdir()
        elif kind == "symlink":
            (root / path).symlink_to(detail)
        else:
            with (root / path).open("wb") as file:
                file.writelines(Content.of(given.written, *detail).chunks())
