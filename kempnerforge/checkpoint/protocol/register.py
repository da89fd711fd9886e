"""The register: what a save needs to know about existing checkpoints, without reading them all.

A save needs the order of commits, the parents, and what retention may delete: the head of each
manifest. Each manager reads the heads once, and remembers how to detect a change. Every save
compares that with the directory:

- The names in the checkpoint directory and their inodes, by one scan (0.5 us per name): a
  checkpoint that appeared or was replaced is read, and one that disappeared is forgotten.
- The modification time of the directory itself. If someone else has changed it since this manager
  last did, the manifest of every known checkpoint must have the same inode, size and times;
  otherwise it is read again.
- Before a deletion, the manifests of the newest checkpoints that count (:meth:`Register.confirm`).

A failed read is never remembered, so it is tried again at the next save.

A new start need not read all heads either. Each save leaves a note at the directory, in an extended
attribute (``user.kempnerforge.register``), which no listing shows. It records when the names in the
directory last changed, how many there were and the sum of their inodes, and the position of the
last commit. If all that is unchanged, the heads are read only when something needs more than the
order: retention, or a checkpoint that this job did not make. Without such a note, or if other
machines' changes can be seen late, all heads are read.

The register also detects a *foreign* save: a checkpoint that was committed since this job loaded
(or first saved, if it did not load), but not by this process. Its position in the order of commits
shows that: it is beyond the last one known at that time; or it equals that of another checkpoint,
and the parent is known here, which happens if a job continued from an old view of the directory.
Then another job has written there, before this one took the directory or despite locks and leases,
and this one does not continue from that checkpoint. As long as it exists, nothing is deleted and it
is not replaced. A checkpoint that a person copies there, from another run or an archive, usually
has another position; if not, it is kept like a foreign save until the job loads or starts again.
Hidden names that appear in that time belong to another job's saves in progress.

Out of scope: a manifest that is changed in place, which no directory shows. It is noticed before a
deletion for which it counts, but not earlier; its position in the order stays as it was. Also a
change by someone without the lock within the same tick of the file system's clock in which this
manager changed the directory, unless names or inodes show it.
"""

import heapq
import json
import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.manifest import Head
from kempnerforge.checkpoint.protocol.catalog import ROOM, Entry, State, look_at
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.lineage import abandoned_branches
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.storage import Stamp, Storage

__all__ = ["NOTE", "Register", "Survey"]

logger = logging.getLogger(__name__)

NOTE = "user.kempnerforge.register"
# Inode numbers without meaning: FUSE uses one for "unknown", some file systems one for everything.
_NO_INODES = frozenset({0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
# Checking this many checkpoints that surely exist is cheap; the cost grows with their number.
_MOST_CONFIRMED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownCheckpoint:
    """A checkpoint as it was read, and how to detect that it has changed."""

    entry: Entry
    inode: int
    """Inode of the name in the checkpoint directory."""
    stamp: Stamp | None
    """Stamp of the manifest; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A checkpoint directory, as a save sees it."""

    names: Mapping[str, int] = field(default_factory=dict)
    """All names except ``latest``, with their inodes."""
    known: Mapping[str, _KnownCheckpoint] = field(default_factory=dict)
    """The checkpoints that could be read, by name."""
    unread: tuple[Entry, ...] = ()
    """The checkpoints that could not be read."""
    is_questionable: bool = False
    """Whether there is a checkpoint that this version cannot load, and so must leave alone."""
    highest: int = 0
    """The highest sequence of any commit ever read here."""
    changed: tuple[int, ...] | None = None
    """Device, inode and last change of names of the directory, when this survey was true; None if
    unknown."""
    is_partial: bool = False
    """Whether heads were left unread, because a note says that none is beyond ``highest``."""

    def entries(self) -> Iterator[Entry]:
        """Yields the checkpoints, in no particular order and without their manifests."""
        yield from (known.entry for known in self.known.values())
        yield from self.unread

    def committed(self) -> dict[str, Head]:
        """Returns the heads of checkpoints that this version can load, by name."""
        heads = ((name, known.entry.loadable_head) for name, known in self.known.items())
        return {name: head for name, head in heads if head is not None}

    def abandoned(self) -> frozenset[str]:
        """Save ids of checkpoints that the last committed one does not descend from."""
        return abandoned_branches(entry.head for entry in self.entries() if entry.head)

    def leftovers(self) -> tuple[str, ...]:
        """Returns the package's names other than checkpoints."""
        return tuple(name for name in self.names if name[0] == "." and layout.is_leftover(name))

    def marks(self) -> list[int] | None:
        """Returns a fingerprint of the names and inodes; None if unknown."""
        if self.changed is None:
            return None
        return [self.changed[-1], len(self.names), sum(self.names.values())]

    def next_sequence(self) -> int:
        """Returns a sequence greater than that of any commit so far, read or unread."""
        return self.highest + (ROOM if self.unread else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stock:
    """The checkpoints that existed when this job loaded or first saved."""

    unread: frozenset[str]
    save_ids: frozenset[str]
    sequences: frozenset[int]
    highest: int


_NOTHING = Survey()


class Register:
    """One manager's view of its checkpoint directory; used on rank 0, by one thread at a time.

    Args:
        process: The process whose saves are this job's own.
    """

    def __init__(self, process: ProcessMemory) -> None:
        self._process = process
        self._survey = _NOTHING
        self._noting: bool | None = None
        self._stock: _Stock | None = None
        self._foreign: dict[str, Head] = {}
        self._abandoned: frozenset[str] | None = None

    def begin_anew(self) -> None:
        """Starts again after the lock was taken: none of the hidden names there is in use."""
        self._abandoned = None

    def take_stock(self) -> None:
        """Records the existing checkpoints, as of the last look, if not recorded yet."""
        if self._abandoned is None:
            self._abandoned = frozenset(self._survey.leftovers())
        if self._stock is None:
            self.accept()

    def accept(self) -> None:
        """Declares all checkpoints of the last look part of this job: none is foreign."""
        self._stock, self._foreign = _stock_of(self._survey), {}

    def is_foreign(self, head: Head) -> bool:
        """Whether another job made this checkpoint since this job loaded or first saved."""
        stock = self._stock
        if stock is None or self._process.is_own(head.save_id) or head.save_id in stock.save_ids:
            return False
        if layout.format_step(head.step) in stock.unread:
            return False
        forks = head.sequence in stock.sequences and head.parent in stock.save_ids
        return head.sequence > stock.highest or forks

    def foreign(self) -> tuple[Head, ...]:
        """Returns the foreign checkpoints, as of the last look, in the order of commits."""
        return tuple(sorted(self._foreign.values(), key=lambda head: head.sequence))

    def is_anothers_work(self, leftover: str) -> bool:
        """Whether a hidden name appeared since this job took the lock, and is not its own."""
        if self._abandoned is None or leftover in self._abandoned:
            return False
        parsed = layout.parse_leftover(leftover)
        save_id = parsed.save_id if parsed else layout.parse_latest_link(leftover)
        return save_id is not None and not self._process.is_own(save_id)

    def look(self, root: Path, runtime: Runtime) -> Survey:
        """Surveys ``root``, and reads what is new or has changed.

        Raises:
            OSError: The directory cannot be listed.
        """
        storage = runtime.storage
        changed, last = _last_change(root, storage), self._survey
        names = dict(storage.scan(root))
        names.pop(layout.LATEST, None)  # it changes with each save
        if last is _NOTHING:
            last = self._from_note(root, storage, names, changed)
        trusted = changed == last.changed and _NO_INODES.isdisjoint(names.values())
        if not trusted:
            last = replace(last, known=_unchanged(last.known, root, storage))
        if not trusted or last.unread or names != last.names:
            survey, read = _read(root, runtime, names, last)
            if last.is_partial:
                self._complete_stock(survey, last)
            self._judge(survey, read)
            last = survey
        self._survey = replace(last, changed=changed)
        return self._survey

    def _complete_stock(self, survey: Survey, partial: Survey) -> None:
        """Adds to the stock checkpoints that were there all the time, but are read only now."""
        if self._stock is None:
            return
        there = {name for name, _ in survey.names.items() & partial.names.items()}
        known = {name: one for name, one in survey.known.items() if name in there}
        unread = tuple(entry for entry in survey.unread if entry.path.name in there)
        found = _stock_of(replace(survey, known=known, unread=unread))
        self._stock = replace(
            found,
            save_ids=found.save_ids | self._stock.save_ids,
            sequences=found.sequences | self._stock.sequences,
            highest=self._stock.highest,
        )

    def _judge(self, survey: Survey, read: Iterable[str]) -> None:
        """Forgets foreign checkpoints that are gone, and finds new ones among those just read."""
        stay = {name: head for name, head in self._foreign.items() if name in survey.known}
        heads = {name: survey.known[name].entry.loadable_head for name in read}
        new = {name: head for name, head in heads.items() if head and self.is_foreign(head)}
        self._foreign = {name: stay[name] for name in stay.keys() - heads.keys()} | new

    def recall(self, root: Path, runtime: Runtime) -> Survey:
        """As :meth:`look`, but skips the scan if the directory has not changed since the last."""
        changed = _last_change(root, runtime.storage)
        unchanged = changed is not None and changed == self._survey.changed
        return self._survey if unchanged else self.look(root, runtime)

    def recall_heads(self, root: Path, runtime: Runtime) -> Survey:
        """As :meth:`recall`, but leaves no head unread."""
        if self._survey.is_partial:
            self._survey = replace(self._survey, changed=None)
        return self.recall(root, runtime)

    def leave_note(self, root: Path, storage: Storage) -> None:
        """Leaves a note that saves the next start from reading what this manager knows.

        Leaves none if there is something that the next start has to report or try again.
        """
        survey = self._survey
        marks = survey.marks()
        if marks is None or survey.unread or survey.is_questionable:
            return
        if self._takes_notes(root, storage):
            note = {"marks": marks, "highest": survey.highest}
            storage.leave_note(root, NOTE, json.dumps(note).encode())

    def _takes_notes(self, root: Path, storage: Storage) -> bool:
        """Whether the time of the directory shows every change. The directory must exist."""
        if self._noting is None:
            self._noting = not storage.may_lag(root)
        return self._noting

    def _from_note(
        self,
        root: Path,
        storage: Storage,
        names: Mapping[str, int],
        changed: tuple[int, ...] | None,
    ) -> Survey:
        """Returns an earlier process's survey if the directory has not changed since, else none."""
        note = storage.note(root, NOTE)
        survey = Survey(names=names, changed=changed, is_partial=True)
        marks = survey.marks()
        if marks is None or note is None or not self._takes_notes(root, storage):
            return _NOTHING
        try:
            found = json.loads(note)
            if found["marks"] == marks:
                return replace(survey, highest=int(found["highest"]))
        except (ValueError, KeyError, TypeError):
            pass
        return _NOTHING

    def confirm(self, root: Path, runtime: Runtime) -> Survey:
        """Returns the survey, after checking that the newest manifests are unchanged."""
        heads = self._survey.committed()
        newest = heapq.nlargest(_MOST_CONFIRMED, heads, key=lambda name: heads[name].sequence)
        newest_known = {name: self._survey.known[name] for name in newest}
        if _unchanged(newest_known, root, runtime.storage) == newest_known:
            return self._survey
        self._survey = replace(self._survey, changed=None)
        return self.look(root, runtime)

    def committed(self, root: Path, storage: Storage, head: Head) -> Survey:
        """Adds a checkpoint that this manager has just committed; returns the survey."""
        path, last = root / layout.format_step(head.step), self._survey
        place = storage.stamp(path)
        one = _KnownCheckpoint(
            entry=Entry(path=path, state=State.committed, step=head.step, head=head),
            inode=0 if place is None else place[1],
            stamp=storage.stamp(path / layout.MANIFEST),
        )
        self._survey = replace(
            last,
            names={**last.names, path.name: one.inode},
            known={**last.known, path.name: one},
            unread=tuple(entry for entry in last.unread if entry.path != path),
            highest=max(last.highest, head.sequence),
            changed=_last_change(root, storage),
        )
        return self._survey

    def retired(self, names: Iterable[str]) -> None:
        """Forgets checkpoints that this manager has just renamed away."""
        gone, last = frozenset(names), self._survey
        self._survey = replace(
            last,
            names={name: inode for name, inode in last.names.items() if name not in gone},
            known={name: one for name, one in last.known.items() if name not in gone},
        )

    @contextmanager
    def own_change(self, root: Path, storage: Storage) -> Generator[None, None, None]:
        """Marks a change of ``root`` by this manager, after which it has a new time.

        A change by someone else up to then is still noticed.
        """
        is_known = _last_change(root, storage) == self._survey.changed
        yield
        changed = _last_change(root, storage) if is_known else None
        self._survey = replace(self._survey, changed=changed)


def _stock_of(survey: Survey) -> _Stock:
    heads = [entry.head for entry in survey.entries() if entry.head is not None]
    return _Stock(
        unread=frozenset(entry.path.name for entry in survey.unread),
        save_ids=frozenset(head.save_id for head in heads),
        sequences=frozenset(head.sequence for head in heads),
        highest=survey.highest,
    )


def _last_change(root: Path, storage: Storage) -> tuple[int, ...] | None:
    """Omits the inode's change time, which the note of the lock's holder changes too."""
    found = storage.stamp(root)
    return None if found is None else (*found[:2], found[3])


def _unchanged(
    known: Mapping[str, _KnownCheckpoint], root: Path, storage: Storage
) -> dict[str, _KnownCheckpoint]:
    """Returns those whose manifest is unchanged; none if the manifests cannot be checked."""
    files = tuple(f"{name}/{layout.MANIFEST}" for name in known)
    try:
        stamps = storage.stamps(root, files)
    except (OSError, MemoryError):
        return {}
    return {
        name: one
        for (name, one), stamp in zip(known.items(), stamps, strict=True)
        if stamp == one.stamp
    }


def _read(
    root: Path, runtime: Runtime, names: Mapping[str, int], last: Survey
) -> tuple[Survey, Collection[str]]:
    """Reads new checkpoints and forgets missing ones; also returns the names of those read."""
    here = dict(last.known)
    for name, _ in last.names.items() - names.items():  # gone, or has another inode now
        here.pop(name, None)
    new = [name for name in names.keys() - here.keys() if layout.parse_step(name) is not None]
    tried = {entry.path.name for entry in last.unread}
    with runtime.process.building():  # creates some long-lived objects per checkpoint
        found = {one.entry.path.name: one for one in _read_each(new, names, root, runtime, tried)}
    unread = [one.entry for one in found.values() if one.entry.is_unknown]
    here |= found
    for entry in unread:
        del here[entry.path.name]
    survey = Survey(
        names=names,
        known=here,
        unread=tuple(unread),
        is_questionable=any(one.entry.is_questionable for one in here.values()),
        highest=max([last.highest, *(one.entry.sequence for one in found.values())]),
    )
    return survey, found.keys() & here.keys()


def _read_each(
    new: Iterable[str], names: Mapping[str, int], root: Path, runtime: Runtime, tried: set[str]
) -> Iterator[_KnownCheckpoint]:
    """Reads those that are directories; a name that failed before gets one attempt."""
    for name in new:
        with runtime.clock.impatient() if name in tried else nullcontext():
            path = root / name
            try:
                stamp = runtime.storage.stamp(path / layout.MANIFEST)
            except (OSError, MemoryError):  # look_at reports it in more detail
                stamp = None
            entry = look_at(path, runtime.storage, heads=True)
        if entry is not None:
            if entry.is_questionable:
                logger.warning("left alone: %s", entry.problem)
            yield _KnownCheckpoint(entry=entry, inode=names[name], stamp=stamp)
