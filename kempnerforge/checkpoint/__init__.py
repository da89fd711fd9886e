"""Distributed checkpoints: whole or absent, agreed by all ranks, exact on resume."""

from kempnerforge.checkpoint.async_save import AsyncCheckpointer
from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointLoadError,
    CheckpointNotFoundError,
    CheckpointSaveError,
    CorruptCheckpointError,
    DirectoryInUseError,
    FreezeMismatchError,
    NoUsableCheckpointError,
    PeerLostError,
    RedistributionError,
    StateMismatchError,
    StorageTimeoutError,
    UnsafeCheckpointError,
)
from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.state import (
    build_train_state,
    get_rng_state,
    restore_train_state,
    set_rng_state,
)
from kempnerforge.checkpoint.verification import LoadReport, VerifyPolicy

__all__ = [
    "AsyncCheckpointer",
    "CheckpointError",
    "CheckpointLoadError",
    "CheckpointManager",
    "CheckpointNotFoundError",
    "CheckpointSaveError",
    "CorruptCheckpointError",
    "DirectoryInUseError",
    "FreezeMismatchError",
    "LoadReport",
    "NoUsableCheckpointError",
    "PeerLostError",
    "RedistributionError",
    "StateMismatchError",
    "StorageTimeoutError",
    "UnsafeCheckpointError",
    "VerifyPolicy",
    "build_train_state",
    "get_rng_state",
    "restore_train_state",
    "set_rng_state",
]
