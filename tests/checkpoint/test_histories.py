"""Random histories of saves, deaths, power cuts, failed operations, resumes, rollbacks, operators.

The protocol is the package's own (``save_checkpoint``, ``choose``, ``finish_off``, retention,
repair); only the disk and the shards are fakes. A model beside it knows which saves were
acknowledged. After every single operation, and for every state that a power cut could leave then:

- a directory with a checkpoint's name is whole, and `latest` is absent or leads to a whole one
  (which may have a hidden name while its step is replaced where names cannot be exchanged),
- a job that only reads, because another one has the directory, finds a whole one where `latest` is,
- the newest ``keep`` acknowledged checkpoints exist, with those of an abandoned branch counted as
  the oldest,
- nothing foreign has changed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from torch.distributed.checkpoint.metadata import Metadata

from kempnerforge.checkpoint.bulk.shards import WrittenShards, encode_metadata
from kempnerforge.checkpoint.bulk.trust import PLAIN_DATA
from kempnerforge.checkpoint.errors import CheckpointError, CorruptCheckpointError
from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.checkpoint.protocol.bulk import WrittenFiles
from kempnerforge.checkpoint.protocol.checkpoint_save import CheckpointSave, save_checkpoint
from kempnerforge.checkpoint.protocol.choosing import Search, choose
from kempnerforge.checkpoint.protocol.effects import Runtime, Unlocked, WriteAccess, one_by_one
from kempnerforge.checkpoint.protocol.pointer import PointerKind
from kempnerforge.checkpoint.protocol.prune import finish_off
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.retention import RetentionPolicy
from kempnerforge.checkpoint.protocol.save_messages import SaveRequest, StagedState
from kempnerforge.cli.mending import apply, plan_repair
from tests.checkpoint.effects import runtime
from tests.checkpoint.memory_storage import Death, Directory, File, Link, MemoryStorage
from tests.checkpoint.simulated import JumpingClock, carry_out

ROOT = Path("/runs/checkpoints")
FOREIGN = {
    "notes.txt": b"mine",
    "step_03": b"not canonical",
    "step_3.bak": b"a copy",
    ".staging-step_x": b"not ours",
    "latest.old": b"a file",
}
MILESTONE = 5
steps = st.integers(0, 6)
operations = st.integers(0, 60)


class OneShard:
    """Bulk of one file."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self.ranks_of: dict[int | None, tuple[int, ...]] = {None: (0,)}
        self.has_rank_values = False

    def propose(self) -> None:
        """There is nothing to say."""

    def merge(self, proposed: Sequence[Any], ranks_of: Mapping[Any, Any]) -> OneShard:
        return self

    def assign(self, rank: int, proposed: Any) -> None:
        """All of it."""

    def encode(self, stage: int | None, written: Sequence[Any], *, save_id: str) -> bytes:
        return encode_metadata(Metadata({}), (), save_id=save_id)

    def write(
        self, directory: Path, assigned: Any, *, meanwhile: Callable[[], object]
    ) -> WrittenFiles:
        files = {"__0_0.distcp": self._storage.write(directory / "__0_0.distcp", b"shard")}
        meanwhile()
        return WrittenShards(files=files, places=b"")


class TakenByAnother(Unlocked):
    """Access to a directory that another job has."""

    def briefly(self) -> AbstractContextManager[bool]:
        return nullcontext(enter_result=False)


@dataclass(frozen=True)
class Whole:
    """A directory that holds everything its manifest names, and nothing else."""

    step: int
    version: int


def files_of(directory: Directory, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for name, node in directory.names.items():
        if isinstance(node, Directory):
            yield from files_of(node, f"{prefix}{name}/")
        elif isinstance(node, File):
            yield prefix + name, node.data


@cache
def decoded(data: bytes) -> manifest.Manifest | None:
    try:
        return manifest.decode(data, where="")
    except CorruptCheckpointError:
        return None


def whole(directory: object) -> Whole | None:
    """Judged without the package's catalog and choice."""
    if not isinstance(directory, Directory):
        return None
    files = dict(files_of(directory))
    found = decoded(files.pop(layout.MANIFEST, b""))
    if found is None:
        return None
    sums = {name: (len(data), zlib.crc32(data)) for name, data in files.items()}
    if sums != {name: (record.size, record.crc32) for name, record in found.files.items()}:
        return None
    return Whole(step=found.step, version=int(files[layout.TRAIN_STATE]))


def target_of(latest: object) -> str:
    """What a `latest` names: a link, or a file of one line."""
    if isinstance(latest, Link):
        return latest.target
    assert isinstance(latest, File)
    assert latest.data.endswith(b"\n")
    return latest.data[:-1].decode()


class Histories(RuleBasedStateMachine):
    """See the head of this module."""

    @initialize(exchanges=st.booleans(), keep=st.integers(0, 3), kind=st.sampled_from(PointerKind))
    def start(self, exchanges: bool, keep: int, kind: PointerKind = PointerKind.link) -> None:
        self.kind = kind
        self.storage = MemoryStorage(exchanges=exchanges)
        self.storage.make_durable_directory(ROOT)
        self.keep = keep
        self.version = 0
        self.told: dict[int, int] = {}
        self.floor = 0
        self.parent: str | None = None
        self.chosen: str | None = None
        self.base: int | None = None
        self.parents: dict[int, int | None] = {}
        self.running = True
        self.foreign: dict[str, bytes] = {}
        self.violations: list[str] = []
        self.storage.watcher = self.watch

    # What happens.

    @precondition(lambda self: self.running)
    @rule(step=steps)
    def save(self, step: int) -> None:
        self.parent, self.base = self.attempt(step), self.version
        self.note_acknowledged(step)
        self.expect_settled()

    @precondition(lambda self: self.running)
    @rule(step=steps, survives=operations)
    def save_and_die(self, step: int, survives: int) -> None:
        self.storage.lives = survives
        try:
            self.attempt(step)
        except Death:
            self.running = False
        else:
            self.note_acknowledged(step)
        self.storage.lives = -1

    @precondition(lambda self: self.running)
    @rule(step=steps, succeeds=operations)
    def save_while_an_operation_fails(self, step: int, succeeds: int) -> None:
        self.storage.until_error = succeeds
        try:
            self.parent, self.base = self.attempt(step), self.version
        except CheckpointError:
            self.note_unacknowledged()
        else:
            self.note_acknowledged(step)
        self.storage.until_error = -1
        assert self.latest_is_sound(self.root())

    @rule(data=st.data())
    def power_fails(self, data: st.DataObject) -> None:
        self.storage.cut_power(lambda states: data.draw(st.integers(0, states - 1)))
        self.running = False
        self.watch()

    def power_fails_completely(self) -> None:
        """Everything that was not synced is gone."""
        self.storage.cut_power(lambda states: 0)
        self.running = False
        self.watch()

    @precondition(lambda self: not self.running)
    @rule(survives=operations)
    def die_while_resuming(self, survives: int) -> None:
        self.storage.lives = survives
        try:
            self.load()
        except Death:
            pass
        else:
            self.running = True
            self.note_unacknowledged()
        self.storage.lives = -1

    @rule()
    def resume(self) -> None:
        found = self.load()
        self.running = True
        assert (found.version if found else 0) >= self.floor
        assert self.leftovers() == []
        self.note_unacknowledged()

    @rule()
    def another_job_reads(self) -> None:
        before = dict(self.root().names)
        found = self.choose(access=TakenByAnother())
        assert (found.version if found else 0) >= self.floor
        assert self.root().names == before

    @precondition(lambda self: self.running and self.told)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(sorted(self.told)))
        found = self.load(ROOT / layout.format_step(step))
        assert found == Whole(step=step, version=self.told[step])

    @rule(name=st.sampled_from(sorted(FOREIGN)))
    def put_a_foreign_file(self, name: str) -> None:
        self.storage.write(ROOT / name, FOREIGN[name])
        self.storage.sync_directory(ROOT)
        self.foreign[name] = FOREIGN[name]

    @precondition(lambda self: self.running and self.told)
    @rule(data=st.data())
    def operator_points_latest(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(sorted(self.told)))
        self.storage.make_link(ROOT / "mine", layout.format_step(step))
        self.storage.rename(ROOT / "mine", ROOT / layout.LATEST)
        self.storage.sync_directory(ROOT)
        self.floor = self.told[step]

    @precondition(lambda self: not self.running)
    @rule()
    def operator_repairs(self) -> None:
        plan = plan_repair(ROOT, self.storage, deep=True)
        assert plan.mended
        apply(ROOT, plan.steps, self.storage)
        assert self.latest_is_sound(self.root())

    # How it is done.

    def attempt(self, step: int) -> str:
        self.version += 1
        self.parents[self.version] = self.ancestor_of_a_save(step)
        staged = StagedState(
            bulk=OneShard(self.storage),
            rank_file=lambda keys: b"rank",
            train_state=str(self.version).encode(),
        )
        effects = self.effects(Unlocked())
        to = CheckpointSave(
            runtime=effects,
            root=ROOT,
            stage=None,
            request=SaveRequest(step=step, tokens_seen=step, metadata={}, parent=self.parent),
            staged=staged,
            retention=RetentionPolicy(
                keep_last_n=self.keep, is_milestone=lambda step: step == MILESTONE
            ),
            register=Register(effects.process),
            save_id=effects.process.new_save_id(),
            latest=self.kind,
        )
        return carry_out(save_checkpoint(to, timeout_s=60.0)).save_id

    def effects(self, access: WriteAccess) -> Runtime:
        return runtime(self.storage, access=access, clock=JumpingClock(), at_once=one_by_one)

    def load(self, explicit: Path | None = None) -> Whole | None:
        loaded = self.choose(explicit, access=Unlocked())
        finish_off(ROOT, self.effects(Unlocked()))
        self.parent, self.base = self.chosen, loaded.version if loaded else None
        return loaded

    def choose(self, explicit: Path | None = None, *, access: WriteAccess) -> Whole | None:
        search = Search(root=ROOT, explicit=explicit, shards=PLAIN_DATA)
        found = carry_out(choose(search, self.effects(access), timeout_s=60.0))
        self.chosen = None
        if found is None:
            return None
        self.chosen = found.manifest.save_id if found.manifest else None
        loaded = whole(self.root().names[found.path.name])
        assert loaded is not None, "a torn checkpoint was chosen"
        return loaded

    # What the model knows.

    def note_acknowledged(self, step: int) -> None:
        """The job was told that its newest version is durable; retention follows."""
        self.told[step] = self.floor = self.version
        counted = self.oldest_first()
        for version in counted[: -self.keep] if self.keep > 0 else ():
            self.told = {s: v for s, v in self.told.items() if v != version or s == step}

    def note_unacknowledged(self) -> None:
        """Something is on the disk that the job was not told about; from now on it is known."""
        found = self.on_disk(self.root())
        self.told = {step: checkpoint.version for step, checkpoint in found.items()}

    def expect_settled(self) -> None:
        """After a save that nothing disturbed the directory holds what the model says."""
        found = self.on_disk(self.root())
        assert {step: checkpoint.version for step, checkpoint in found.items()} == self.told
        assert self.leftovers() == []
        latest = self.root().names[layout.LATEST]
        assert isinstance(latest, Link if self.kind is PointerKind.link else File)
        assert found[layout.parse_step(target_of(latest)) or 0].version == self.version

    def newest_acknowledged(self) -> set[int]:
        """Versions of which retention can have taken none, whatever is under way."""
        counted = [version for version in self.oldest_first() if version in self.told.values()]
        kept = self.keep - 1 if self.keep > 0 else len(counted)
        return set(counted[-kept:] if kept else [])

    def ancestor_of_a_save(self, step: int) -> int | None:
        """What a save of ``step`` goes on from; it may replace that itself."""
        replaced = self.on_disk(self.root()).get(step)
        if self.base is not None and replaced is not None and replaced.version == self.base:
            return self.parents[self.base]
        return self.base

    def oldest_first(self) -> list[int]:
        """Versions that count, the last attempt among them, as retention has to order them."""
        versions = {*self.told.values(), self.version}
        aside, child = set(), self.version
        while older := {version for version in versions if version < child}:
            parent = self.parents[child]
            if parent is not None and parent not in older:
                parent = max(older)  # gone, so the link is not known
            aside |= {version for version in older if parent is None or version > parent}
            if parent is None:
                break
            child = parent
        milestone = self.told.get(MILESTONE)
        counted = versions - ({milestone} if milestone is not None else set())
        return sorted(counted, key=lambda version: (version not in aside, version))

    # What is looked at after every operation.

    def watch(self) -> None:
        self.judge("live", self.root())
        for state in self.storage.power_cuts(ROOT):
            self.judge("after a power cut", state)

    def judge(self, view: str, root: Directory) -> None:
        for name, node in root.names.items():
            if layout.parse_step(name) is not None and whole(node) is None:
                self.violations.append(f"{view}: {name} is not whole")
        if not self.latest_is_sound(root):
            self.violations.append(f"{view}: latest names nothing whole")
        found = {checkpoint.version for checkpoint in self.on_disk(root).values()}
        replaced = {whole(node) for name, node in root.names.items() if layout.parse_leftover(name)}
        aside = {checkpoint.version for checkpoint in replaced if checkpoint}
        lost = self.newest_acknowledged() - found - aside - self.replaced_by(root)
        if lost:
            self.violations.append(f"{view}: versions {lost} are gone")
        for name, content in self.foreign.items():
            file = root.names.get(name)
            if not isinstance(file, File) or file.data != content:
                self.violations.append(f"{view}: {name} was touched")

    def replaced_by(self, root: Directory) -> set[int]:
        """Told versions whose step holds a newer version."""
        found = self.on_disk(root)
        return {
            version
            for step, version in self.told.items()
            if step in found and found[step].version > version
        }

    def latest_is_sound(self, root: Directory) -> bool:
        latest = root.names.get(layout.LATEST)
        return latest is None or whole(root.names.get(target_of(latest))) is not None

    @invariant()
    def holds(self) -> None:
        assert getattr(self, "violations", []) == []

    def root(self) -> Directory:
        node = self.storage.top.names["runs"]
        assert isinstance(node, Directory)
        root = node.names["checkpoints"]
        assert isinstance(root, Directory)
        return root

    def on_disk(self, root: Directory) -> Mapping[int, Whole]:
        return {
            step: found
            for name, node in root.names.items()
            if (step := layout.parse_step(name)) is not None and (found := whole(node))
        }

    def leftovers(self) -> list[str]:
        names = self.root().names
        return [n for n in names if layout.parse_leftover(n) or layout.parse_latest_link(n)]


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("succeeds", range(40))
def test_a_failed_operation_while_a_step_is_saved_again_loses_neither_version(
    exchanges: bool, succeeds: int
) -> None:
    history = Histories()
    history.start(exchanges=exchanges, keep=0)
    history.save(step=0)
    history.save_while_an_operation_fails(step=0, succeeds=succeeds)
    history.holds()
    history.resume()
    history.holds()


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("survives", range(40))
def test_a_death_while_a_step_is_saved_again_loses_nothing_in_a_later_power_cut(
    exchanges: bool, survives: int
) -> None:
    history = Histories()
    history.start(exchanges=exchanges, keep=1)
    history.save(step=0)
    history.save(step=1)
    history.save_and_die(step=1, survives=survives)
    history.holds()
    history.resume()
    history.holds()


def test_an_older_version_whose_deletion_failed_does_not_outlive_its_step() -> None:
    history = Histories()
    history.start(exchanges=False, keep=2)
    history.save(step=1)
    history.save(step=0)
    history.save_while_an_operation_fails(step=1, succeeds=22)  # the deletion of the older version
    assert history.leftovers()
    history.save_while_an_operation_fails(step=0, succeeds=2)  # the next attempt
    history.save_while_an_operation_fails(step=2, succeeds=2)  # and the next
    history.holds()
    history.resume()
    history.holds()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=15, deadline=None)
