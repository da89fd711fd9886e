"""The stand-alone checkpointer, and the choice of how each mode copies the state."""

import logging
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.bulk.directory_save import DirectorySave
from kempnerforge.checkpoint.bulk.shards import (
    StagedShards,
    stage_shards,
)
from kempnerforge.checkpoint.bulk.staging import KeptBuffers, LiveTensors, Stager
from kempnerforge.checkpoint.deadlines import DEFAULT_COMMIT_TIMEOUT_S
from kempnerforge.checkpoint.errors import (
    RankFailure,
    describe,
)
from kempnerforge.checkpoint.protocol.rounds import LocalCollective
from kempnerforge.checkpoint.protocol.save_messages import Published
from kempnerforge.checkpoint.protocol.saving import save
from kempnerforge.checkpoint.runtime.background import BackgroundCall
from kempnerforge.checkpoint.runtime.collective import Collective, GlooCollective
from kempnerforge.checkpoint.runtime.directories import local_directory
from kempnerforge.checkpoint.runtime.driver import ProtocolRun
from kempnerforge.checkpoint.runtime.process import local_runtime
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage, revocable
from kempnerforge.checkpoint.runtime.worker import Worker
from kempnerforge.config.schema import AsyncCheckpointMode

__all__ = ["AsyncCheckpointer", "make_stager", "mode_of"]

logger = logging.getLogger(__name__)

# For a whole save, of which writing on one rank can take a third.
_DEADLINE_S = 3 * DEFAULT_COMMIT_TIMEOUT_S


def mode_of(value: Any) -> AsyncCheckpointMode:
    """Returns the mode for a value, which can be a member of another enum with the same values.

    Raises:
        ValueError: There is no such mode.
    """
    return AsyncCheckpointMode(value.value if isinstance(value, Enum) else value)


def make_stager(mode: AsyncCheckpointMode, *, direct: bool = True) -> Stager:
    """Returns the stager that copies tensors as ``mode`` asks."""
    if mode is AsyncCheckpointMode.disabled:
        return LiveTensors()
    return KeptBuffers(pinned=mode is AsyncCheckpointMode.async_pinned, direct=direct)


class AsyncCheckpointer:
    """Writes a distributed state dict into a directory, optionally in the background.

    Unlike :class:`CheckpointManager` it uses no staging directory, no manifest and no ``latest``.
    ``.metadata`` is written last, so a directory without it is torn. Each save waits for the
    previous one. All methods must be called from one thread.

    Args:
        mode: Whether ``save`` waits for the flush and, if not, how the state is copied.

    Attributes:
        mode: The argument.
    """

    def __init__(self, mode: AsyncCheckpointMode = AsyncCheckpointMode.disabled) -> None:
        self.mode = mode_of(mode)
        self._stager = make_stager(self.mode)
        self._pending: BackgroundCall[Published] | None = None
        self._collectives: dict[tuple[int, ...], Collective] = {}

    def save(
        self,
        state_dict: dict[str, Any],
        checkpoint_id: str,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        """Saves ``state_dict`` into the directory ``checkpoint_id``. Collective over its group.

        In the asynchronous modes the state is copied before this returns. Communication uses a
        separate group, created at the first save with these ranks.

        Args:
            state_dict: Nested dicts of tensors, DTensors and plain values. As in DCP, plain values
                should be equal on all ranks; if one differs, a warning is logged and one rank's
                value is kept.
            checkpoint_id: The directory; it is created.
            process_group: Ranks that save together, such as those of one pipeline stage; None means
                all. The group itself is not used for communication.

        Raises:
            ValueError: ``checkpoint_id`` is a URL.
            CheckpointError: The previous save failed (then nothing is saved), or, in mode
                ``disabled``, this one did.
        """
        directory = local_directory(checkpoint_id)
        self.wait()
        collective = self._collective(process_group)
        collective.renew()
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
        job = self._job(directory, staged, collective)
        if self.mode is AsyncCheckpointMode.disabled:
            job.run()
            return
        self._pending = BackgroundCall(
            job.run, name=f"saving {checkpoint_id}", timeout_s=4 * _DEADLINE_S
        )

    def _job(
        self, directory: Path, staged: StagedShards | RankFailure, collective: Collective
    ) -> ProtocolRun[Published]:
        worker = Worker(f"writing {directory}")
        storage = revocable(RetryingStorage(LocalStorage()), revoked=lambda: worker.stuck)
        runtime = replace(
            local_runtime(storage), rank=collective.rank, world_size=collective.world_size
        )
        to = DirectorySave(
            runtime=runtime,
            path=directory,
            shards=staged,
            save_id=runtime.process.new_save_id(),
        )
        return ProtocolRun(save(to, runtime, timeout_s=_DEADLINE_S), collective, worker)

    def wait(self) -> None:
        """Blocks until the pending save, if any, is durable; not collective.

        Raises:
            CheckpointError: The pending save failed; raised once.
        """
        if self._pending is None:
            return
        try:
            self._pending.result()
        except Exception:
            # A writer that was given up may still read the buffers.
            self._stager.drop()
            self._pending = None
            raise
        # Not before: after an interrupt the save is still pending.
        self._pending = None

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
