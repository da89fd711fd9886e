"""Saving in the background: the thread of a save under way, and the stand-alone checkpointer."""

import atexit
import logging
import threading
from array import array
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch.distributed as dist
from torch.distributed.checkpoint.planner import SavePlan

from kempnerforge.checkpoint.bulk.shards import (
    StagedShards,
    encode_metadata,
    merge_plans,
    stage_shards,
    write_shards,
)
from kempnerforge.checkpoint.bulk.staging import KeptBuffers, LiveTensors, Stager
from kempnerforge.checkpoint.deadlines import DEFAULT_COMMIT_TIMEOUT_S
from kempnerforge.checkpoint.errors import (
    CheckpointSaveError,
    RankFailure,
    StorageTimeoutError,
    agreed_error,
    describe,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.commit import new_save_id
from kempnerforge.checkpoint.protocol.visibility import await_made
from kempnerforge.checkpoint.runtime.collective import Collective, GlooCollective, LocalCollective
from kempnerforge.checkpoint.runtime.stale import RetryingStorage, again_if_stale
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.checkpoint.state.rank_values import PlannedValues, unequal_names
from kempnerforge.config.schema import AsyncCheckpointMode

__all__ = ["AsyncCheckpointer", "BackgroundCall", "make_stager", "mode_of"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Calls whose result nobody has fetched, for the end of the interpreter to speak of.
_unfetched: set["BackgroundCall[Any]"] = set()


class BackgroundCall(Generic[T]):
    """One call in a thread of its own; its result or error is fetched once.

    The interpreter waits for the thread when it ends, so a call must be bounded by itself. An error
    that nobody fetched is logged then.
    """

    def __init__(self, call: Callable[[], T], *, name: str, timeout_s: float) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=False)
        _unfetched.add(self)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the call has not returned yet."""
        return self._thread.is_alive()

    def result(self) -> T:
        """Wait for the call and hand over its result, or raise its error.

        Raises:
            StorageTimeoutError: It did not return in time; it may still be running.
        """
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            raise StorageTimeoutError(f"{self._thread.name} is still running after its deadline")
        _unfetched.discard(self)
        return self._future.result()

    def report(self) -> None:
        """Log the error of a call that nobody will fetch any more."""
        error = self._future.exception() if self._future.done() else None
        if error is not None:
            logger.error("%s failed and nobody waited for it: %s", self._thread.name, error)

    def _run(self) -> None:
        try:
            self._future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001  # travels to the thread that fetches it
            self._future.set_exception(error)


@atexit.register
def _report_unfetched() -> None:
    for call in _unfetched:
        call.report()


def mode_of(value: Any) -> AsyncCheckpointMode:
    """The mode of that value, which may be a member of another class with the same values.

    Raises:
        ValueError: There is no such mode.
    """
    return AsyncCheckpointMode(value.value if isinstance(value, Enum) else value)


def make_stager(mode: AsyncCheckpointMode, *, direct: bool = True) -> Stager:
    """How tensors are taken in ``mode``."""
    if mode is AsyncCheckpointMode.disabled:
        return LiveTensors()
    return KeptBuffers(pinned=mode is AsyncCheckpointMode.async_pinned, direct=direct)


class AsyncCheckpointer:
    """Writes a distributed state dict into a directory, in the background where asked to.

    This is the part below :class:`CheckpointManager`: no staging directory, no manifest, no
    ``latest``. ``.metadata`` is written last, so a directory without it is torn. Each save waits
    for the one before. All methods are for one thread.

    Args:
        mode: Whether ``save`` waits for the flush, and how the state is copied if not.

    Attributes:
        mode: The same.
    """

    def __init__(self, mode: AsyncCheckpointMode = AsyncCheckpointMode.disabled) -> None:
        self.mode = mode_of(mode)
        self._stager = make_stager(self.mode)
        self._pending: BackgroundCall[None] | None = None
        self._collectives: dict[tuple[int, ...], Collective] = {}

    def save(
        self,
        state_dict: dict[str, Any],
        checkpoint_id: str,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        """Save ``state_dict`` into the directory ``checkpoint_id``. Collective over its group.

        In the asynchronous modes the state is copied before this returns. Communication runs on a
        group of its own, made at the first save with these ranks.

        Args:
            state_dict: Nested dicts of tensors, DTensors and plain values. As in DCP, a plain
                value is one that all ranks share; one that differs by rank is warned of, and one
                rank's is kept.
            checkpoint_id: Directory; created.
            process_group: Ranks that save together, such as those of one pipeline stage; all ranks
                where None. It only says who takes part.

        Raises:
            ValueError: ``checkpoint_id`` is a URL.
            CheckpointError: The previous save failed (nothing is saved then), or in mode
                ``disabled`` this one.
        """
        directory = layout.local_directory(checkpoint_id)
        self.wait()
        collective = self._collective(process_group)
        collective.renew()
        save = _DirectorySave(collective=collective, directory=directory)
        staged: StagedShards | RankFailure
        try:
            staged = stage_shards(
                state_dict,
                stager=self._stager,
                is_coordinator=collective.rank == 0,
                world_size=collective.world_size,
            )
            self._stager.finish()
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            staged = describe(error, collective.rank)
        if self.mode is AsyncCheckpointMode.disabled:
            save.run(staged)
            return
        self._pending = BackgroundCall(
            lambda: save.run(staged),
            name=f"saving {checkpoint_id}",
            timeout_s=4 * DEFAULT_COMMIT_TIMEOUT_S,
        )

    def wait(self) -> None:
        """Block until the pending save, if any, is durable; not collective.

        Raises:
            CheckpointError: It failed; raised once.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        finally:
            if pending.running:
                self._stager.drop()

    @property
    def is_pending(self) -> bool:
        """Whether a save is still in progress; not collective."""
        return self._pending is not None and self._pending.running

    def _collective(self, process_group: dist.ProcessGroup | None) -> Collective:
        if not (dist.is_available() and dist.is_initialized()):
            return LocalCollective()
        ranks = tuple(dist.get_process_group_ranks(process_group or dist.group.WORLD))
        if len(ranks) == 1:
            return LocalCollective()
        if ranks not in self._collectives:
            self._collectives[ranks] = GlooCollective(
                timeout_s=DEFAULT_COMMIT_TIMEOUT_S, ranks=ranks
            )
        return self._collectives[ranks]


class _DirectorySave:
    """The two rounds of a save without staging directory or manifest."""

    def __init__(self, *, collective: Collective, directory: Path) -> None:
        self._collective = collective
        self._directory = directory
        self._storage = RetryingStorage(LocalStorage())
        self._timeout_s = DEFAULT_COMMIT_TIMEOUT_S

    def run(self, staged: StagedShards | RankFailure) -> None:
        """Plan, write and complete; the same error on every rank."""
        proposal: Any = staged
        if isinstance(staged, StagedShards):
            proposal = staged.planned, staged.checksums()
        plans, metadata = self._round(proposal, self._merge)
        plan = plans[self._collective.rank]
        try:
            assert isinstance(staged, StagedShards)
            self._storage.make_durable_directory(self._directory)
            write = partial(write_shards, self._directory, plan, staged)
            await_made(self._directory, self._storage)
            report: Any = again_if_stale(write, self._directory)
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            report = describe(error, self._collective.rank)
        self._round(report, lambda written: self._complete(metadata, plans, written))

    def _round(self, vote: object, decide: Callable[[list[Any]], Any]) -> Any:
        votes = self._collective.collect(vote, timeout_s=self._timeout_s)
        replies = None
        if votes is not None:
            reply: Any = tuple(
                vote for vote in votes.values if isinstance(vote, RankFailure)
            ) + tuple(votes.lost)
            if not reply:
                try:
                    reply = _Decision(decide(list(votes.values)))
                except Exception as error:  # noqa: BLE001  # becomes the error of every rank
                    reply = (describe(error, 0),)
            replies = [reply] * self._collective.world_size
        answer = self._collective.answer(replies, timeout_s=2 * self._timeout_s)
        if isinstance(answer, _Decision):
            return answer.value
        raise agreed_error(
            answer,
            doing=f"saving to {self._directory}",
            default=CheckpointSaveError,
            path=str(self._directory),
        )

    def _merge(self, proposals: list[tuple[PlannedValues, bytes]]) -> tuple[Any, Any]:
        self._storage.make_durable_directory(self._directory)
        self._storage.unlink(self._directory / layout.SHARD_METADATA)
        planned = dict(enumerate(one for one, _ in proposals))
        sums = {rank: array("Q", data) for rank, (_, data) in enumerate(proposals)}
        differing = unequal_names(planned, sums)
        if differing:
            logger.warning(
                "%s: of %d values that differ by rank under one name one rank's is kept, as by "
                "DCP, the first: %s; give each rank's a name of its own, or use CheckpointManager",
                self._directory,
                len(differing),
                min(differing),
            )
        return merge_plans([one.plan for one in planned.values()])

    def _complete(self, metadata: Any, plans: list[SavePlan], written: list[Any]) -> None:
        self._storage.sync_directory(self._directory)
        pairs = zip(plans, written, strict=True)
        data = encode_metadata(metadata, pairs, save_id=new_save_id())
        self._storage.write(self._directory / layout.SHARD_METADATA, data)
        self._storage.sync_directory(self._directory)


class _Decision:
    def __init__(self, value: Any) -> None:
        self.value = value
