"""Checkpoint configuration: where, when and how checkpoints are written and kept."""

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from kempnerforge.checkpoint.deadlines import DEFAULT_COMMIT_TIMEOUT_S

__all__ = ["AsyncCheckpointMode", "CheckpointConfig", "DynamicCheckpointWindow"]


class AsyncCheckpointMode(StrEnum):
    """How much of a save happens while training waits."""

    disabled = "disabled"
    """``save`` returns when the checkpoint is durable and published."""

    async_ = "async"
    """``save`` returns when the state is copied; the rest happens in the background."""

    async_pinned = "async_with_pinned_mem"
    """As ``async``, but accelerator tensors are copied through reused page-locked buffers."""


@dataclass(frozen=True)
class DynamicCheckpointWindow:
    """Extra checkpoints, dense at first, whose steps are exempt from retention.

    ``power2`` saves at ``start`` and at every ``start + 2**k`` that does not exceed ``stop``.
    """

    start: int = 0
    stop: int = 512
    strategy: str = "power2"

    def __post_init__(self) -> None:
        if self.strategy != "power2":
            raise ValueError(f"unknown strategy {self.strategy!r}; the only one is 'power2'")
        if self.start < 0 or self.stop < self.start:
            raise ValueError(
                f"a window needs 0 <= start <= stop, found start={self.start}, stop={self.stop}"
            )

    def contains(self, step: int) -> bool:
        """Whether the window asks for a checkpoint at ``step``."""
        offset = step - self.start
        if step > self.stop or offset < 0:
            return False
        return offset & (offset - 1) == 0


@dataclass
class CheckpointConfig:
    """Options of :class:`kempnerforge.checkpoint.CheckpointManager`."""

    dir: str = "checkpoints"
    """Directory that holds ``step_N/`` and ``latest``; shared by all ranks."""

    interval: int = 1000
    """Training steps between two regular checkpoints."""

    dyn_ckpt_window: DynamicCheckpointWindow | None = None
    """Additional checkpoints, exempt from retention."""

    async_mode: AsyncCheckpointMode = AsyncCheckpointMode.disabled
    """Which part of a save training waits for."""

    keep_last_n: int = 3
    """Number of newest committed checkpoints to keep, besides milestones; 0 or less keeps all."""

    load_path: str | None = None
    """A checkpoint to load instead of ``latest``; if it cannot be loaded, that is an error."""

    export_dtype: str = "bfloat16"
    """Element type of exported weights; checkpoints keep the type that training uses."""

    exclude_from_loading: list[str] = field(default_factory=list)
    """State keys that ``load`` leaves alone, such as ``optimizer`` or ``scheduler``."""

    ignore_freeze_mismatch: bool = False
    """Load even if the checkpoint was written with other modules frozen."""

    commit_timeout_s: float = DEFAULT_COMMIT_TIMEOUT_S
    """Time limit in seconds for a save or a load, from its first collective round to its last."""

    verify_on_load: str = "full"
    """How much of a checkpoint is compared with its manifest before it is loaded: ``full`` (every
    byte), ``sizes`` (every file's size) or ``off``. If damage is found, ``load`` falls back to an
    older checkpoint; undetected damage is loaded."""

    check_restored: str = "sample"
    """How much of the state is compared with the checkpoint after the program's own
    ``load_state_dict`` calls: ``sample`` (names, types, shapes, and the bits of some values),
    ``all`` or ``off``. A difference is an error, because the run would not continue exactly."""

    allow_unsafe_pickle: bool = False
    """Rebuild any Python object that a checkpoint's files ask for, which lets their author run
    code in this process. For old files of trusted origin that would otherwise be refused."""

    direct_io: bool = True
    """Write large shards of background saves past the page cache (``O_DIRECT``) if the file system
    supports it: the flush slows training less, and evicts nothing that training reads."""

    follow_moved_dir: bool = False
    """Accept that ``dir`` leads to another directory than when the run began (the directory or a
    link to it was moved), provided that it contains the checkpoint that the run last saved or
    loaded. If False, or if that checkpoint is missing, saves and loads are refused."""

    latest: str = "link"
    """The kind of ``latest`` to write: ``link``, a symbolic link, or ``file``, a one-line file with
    the name of the checkpoint, for file systems without links. Both kinds can always be read."""

    def __post_init__(self) -> None:
        if self.verify_on_load not in ("full", "sizes", "off"):
            raise ValueError(
                f"verify_on_load must be 'full', 'sizes' or 'off', found {self.verify_on_load!r}"
            )
        if self.check_restored not in ("sample", "all", "off"):
            raise ValueError(
                f"check_restored must be 'sample', 'all' or 'off', found {self.check_restored!r}"
            )
        if self.latest not in ("link", "file"):
            raise ValueError(f"latest must be 'link' or 'file', found {self.latest!r}")
        if self.interval < 1:
            raise ValueError(f"interval must be at least 1 training step, found {self.interval}")
        if self.commit_timeout_s <= 0:
            raise ValueError(f"commit_timeout_s must be positive, found {self.commit_timeout_s}")
        mode: Any = self.async_mode  # can be a member of another class with the same values
        self.async_mode = AsyncCheckpointMode(mode.value if isinstance(mode, Enum) else mode)

    def should_save(self, step: int) -> bool:
        """Whether a checkpoint is due after ``step`` training steps."""
        return (step > 0 and step % self.interval == 0) or self.is_dynamic_milestone(step)

    def is_dynamic_milestone(self, step: int) -> bool:
        """Whether ``step`` belongs to the dynamic window, which retention never deletes."""
        return self.dyn_ckpt_window is not None and self.dyn_ckpt_window.contains(step)
