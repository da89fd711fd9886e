"""Which checkpoint to load: rank 0 decides, all ranks verify, everyone learns the same answer.

Rank 0 lists candidates and hands out one at a time together with a share of its files; each rank
reads its share and compares checksums. The first candidate that every rank finds whole is chosen.
A candidate that was named explicitly has no successor: if it is broken, that is the error.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint import layout, prune
from kempnerforge.checkpoint.catalog import (
    Catalog,
    Entry,
    State,
    inspect,
    plain_stages,
    read_catalog,
    verify_sizes,
)
from kempnerforge.checkpoint.collective import Collective, Votes
from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointLoadError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    NoUsableCheckpointError,
    RankFailure,
    agreed_error,
    describe,
)
from kempnerforge.checkpoint.lock import WriteAccess
from kempnerforge.checkpoint.manifest import FileRecord, Manifest
from kempnerforge.checkpoint.shards import check_metadata
from kempnerforge.checkpoint.storage import Storage
from kempnerforge.checkpoint.trust import PLAIN_DATA, Trust
from kempnerforge.checkpoint.verification import VerifyPolicy, verify_files
from kempnerforge.checkpoint.worker import Worker

__all__ = ["Choice", "Search", "cheap_choice", "choose", "verify_entry"]

logger = logging.getLogger(__name__)

# Work ends before the other ranks' wait for its result does, so that a slow rank says so itself.
_WORK_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The checkpoint that all ranks load."""

    path: Path
    manifest: Manifest | None
    """None for a plain checkpoint of another program."""
    passed_over: tuple[str, ...] = ()
    """Why newer candidates were not chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Where to look.

    Exactly one of root and explicit path has effect: the latter wins.
    """

    root: Path
    explicit: Path | None = None
    verify: VerifyPolicy = VerifyPolicy.full
    trust: Trust = PLAIN_DATA


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verify:
    choice: Choice
    files: tuple[tuple[str, FileRecord], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    failures: tuple[RankFailure, ...]


def choose(
    search: Search,
    collective: Collective,
    storage: Storage,
    *,
    worker: Worker,
    timeout_s: float,
    access: WriteAccess,
) -> Choice | None:
    """Find the checkpoint to load. Collective; the same result or error on every rank.

    Returns:
        The choice, or None where nothing was ever saved.

    Raises:
        CheckpointNotFoundError: The explicit path does not exist.
        NoUsableCheckpointError: There are checkpoints, none of them verifies.
        CheckpointError: The explicit path is broken, or a rank is lost.
    """
    root = _Root(search, storage, access) if collective.rank == 0 else None
    verdict: RankFailure | None = None
    while True:
        votes = collective.collect(verdict, timeout_s=timeout_s)
        replies = None
        if votes is not None and root is not None:
            replies = _decide(root, votes, collective.world_size, worker, timeout_s)
        reply: Any = collective.answer(replies, timeout_s=2 * timeout_s)
        if isinstance(reply, _Refusal):
            raise agreed_error(
                reply.failures,
                doing=f"choosing a checkpoint in {search.explicit or search.root}",
                default=CheckpointLoadError,
                path=str(search.explicit or search.root),
            )
        if not isinstance(reply, _Verify):
            chosen: Choice | None = reply
            return chosen
        verdict = _verify_share(reply, collective.rank, storage, worker, timeout_s)


def _verify_share(
    task: _Verify, rank: int, storage: Storage, worker: Worker, timeout_s: float
) -> RankFailure | None:
    try:
        worker.run(
            lambda: _verify_files(task, storage),
            timeout_s=_WORK_SHARE * timeout_s,
            doing=f"verifying {task.choice.path}",
        )
    except CheckpointError as error:
        return describe(error, rank)
    return None


def _verify_files(task: _Verify, storage: Storage) -> None:
    if task.choice.manifest is not None:
        verify_files(task.choice.path, task.choice.manifest, task.files, storage)


def _decide(
    root: "_Root", votes: Votes, world_size: int, worker: Worker, timeout_s: float
) -> Sequence[object]:
    failures = tuple(vote for vote in votes.values if vote is not None)
    if votes.lost:
        return [_Refusal(failures=votes.lost)] * world_size
    try:
        return worker.run(
            lambda: root.next(failures, world_size),
            timeout_s=_WORK_SHARE * timeout_s,
            doing=f"looking for checkpoints in {root.search.root}",
        )
    except Exception as error:  # noqa: BLE001  # becomes the error of every rank
        return [_Refusal(failures=(describe(error, 0),))] * world_size


class _Root:
    """Rank 0's walk through the candidates."""

    def __init__(self, search: Search, storage: Storage, access: WriteAccess) -> None:
        self.search = search
        self._access = access
        self._storage = storage
        self._passed_over: list[str] = []
        self._candidates: Iterator[Entry] | None = None
        self._current: Choice | None = None

    def next(self, failures: tuple[RankFailure, ...], world_size: int) -> Sequence[object]:
        """One reply a rank: verify this, or the choice, or that there is none."""
        if self._current is not None and not failures:
            return [self._current] * world_size
        if self._current is not None:
            self._pass_over(self._current.path, "; ".join(map(str, failures)), failures)
        if self._candidates is None:
            self._candidates = iter(self._list())
        for entry in self._candidates:
            try:
                choice, files = self._examine(entry)
            except CheckpointError as error:
                self._pass_over(entry.path, str(error), (describe(error, 0),))
                continue
            self._current = choice
            return [
                _Verify(choice=choice, files=tuple(files[rank::world_size]))
                for rank in range(world_size)
            ]
        self._require_clean_start()
        return [None] * world_size

    def _pass_over(self, path: Path, reason: str, failures: tuple[RankFailure, ...]) -> None:
        if self.search.explicit is not None:
            raise agreed_error(
                failures,
                doing=f"verifying {path}",
                default=CorruptCheckpointError,
                path=str(path),
            )
        logger.warning("checkpoint %s is passed over: %s", path, reason)
        self._passed_over.append(f"{path.name}: {reason}")

    def _list(self) -> tuple[Entry, ...]:
        explicit = self.search.explicit
        if explicit is not None:
            return (find_explicit(explicit, self._storage),)
        with self._access.briefly() as mine:
            if mine:
                prune.recover(self.search.root, self._storage)
        return candidates(read_catalog(self.search.root, self._storage), self._storage)

    def _examine(self, entry: Entry) -> tuple[Choice, list[tuple[str, FileRecord]]]:
        verify_entry(entry, self._storage, verify=self.search.verify, trust=self.search.trust)
        choice = Choice(
            path=entry.path, manifest=entry.manifest, passed_over=tuple(self._passed_over)
        )
        reads = entry.manifest is not None and self.search.verify is VerifyPolicy.full
        files = sorted(entry.manifest.files.items()) if reads and entry.manifest else []
        return choice, files

    def _require_clean_start(self) -> None:
        """Nothing to load is fine where nothing was saved, and an error otherwise."""
        if self._passed_over:
            raise NoUsableCheckpointError(
                f"{self.search.root} holds checkpoints, none can be used: "
                + "; ".join(self._passed_over)
            )


def candidates(catalog: Catalog, storage: Storage) -> tuple[Entry, ...]:
    """What could be loaded, best first: ``latest``, then newest commit first, then the torn.

    Torn ones are listed so that they are reported when nothing better is found.
    """
    found: list[Entry] = []
    latest = catalog.root / layout.LATEST
    if catalog.latest is not None or storage.is_directory(latest):
        target = latest if catalog.latest is None else _resolve(latest, catalog.latest, storage)
        found.append(inspect(target, storage))
    torn = [entry for entry in catalog.entries if entry.state is State.torn]
    for entry in (*catalog.newest_first(), *torn):
        if all(entry.path != other.path for other in found):
            found.append(entry)
    return tuple(found)


def _resolve(link: Path, target: str, storage: Storage) -> Path:
    """Where the link leads; a link within the directory keeps the directory's spelling."""
    if layout.parse_step(target) is not None:
        return link.parent / target
    return storage.resolve(link) or link.parent / target


def find_explicit(path: Path, storage: Storage) -> Entry:
    """The checkpoint at a path that a person named: a checkpoint, a link to one, or a directory
    of checkpoints, which stands for what its ``latest`` names.

    Raises:
        CheckpointNotFoundError: There is nothing.
    """
    real = storage.resolve(path)
    if real is None:
        raise CheckpointNotFoundError(f"{path} does not exist", path=str(path))
    entry = inspect(path if storage.read_link(path) is None else real, storage)
    if entry.state is State.torn:
        latest = storage.resolve(path / layout.LATEST)
        return entry if latest is None else inspect(latest, storage)
    return entry


def verify_entry(
    entry: Entry,
    storage: Storage,
    *,
    verify: VerifyPolicy = VerifyPolicy.full,
    trust: Trust = PLAIN_DATA,
) -> None:
    """Check all that can be checked without reading shards.

    Raises:
        CorruptCheckpointError: Something is missing or has the wrong size.
        UnsafeCheckpointError: ``.metadata`` of a plain checkpoint asks for a class not allowed.
    """
    if entry.state is State.torn:
        raise CorruptCheckpointError(f"incomplete: {entry.problem}", path=str(entry.path))
    if entry.manifest is not None:
        if verify is not VerifyPolicy.off:
            verify_sizes(entry.path, entry.manifest, storage)
        return
    for stage in plain_stages(entry.path, storage) or (None,):
        folder = entry.path if stage is None else entry.path / layout.format_stage(stage)
        file = folder / layout.SHARD_METADATA
        check_metadata(folder, trust.metadata(storage.read(file), where=str(file)))


def cheap_choice(search: Search, storage: Storage) -> Path | None:
    """What :func:`choose` would find if no file's content is damaged. Not collective."""
    if search.explicit is not None:
        entries: tuple[Entry, ...] = (find_explicit(search.explicit, storage),)
    else:
        entries = candidates(read_catalog(search.root, storage), storage)
    for entry in entries:
        try:
            verify_entry(entry, storage, trust=search.trust)
        except (CheckpointError, OSError) as error:
            logger.debug("%s is not usable: %s", entry.path, error)
            continue
        return entry.path
    return None
