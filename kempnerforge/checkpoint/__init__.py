"""Distributed checkpoints: whole or absent, agreed by all ranks, exact on resume.

The names below are imported on first use, because importing torch takes seconds and inspecting
checkpoints (``kempnerforge-ckpt``) does not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kempnerforge.checkpoint.async_save import AsyncCheckpointer
    from kempnerforge.checkpoint.errors import (
        CheckpointError,
        CheckpointLoadError,
        CheckpointNotFoundError,
        CheckpointSaveError,
        CorruptCheckpointError,
        DirectoryChangedError,
        DirectoryInUseError,
        FreezeMismatchError,
        NewerFormatError,
        NoUsableCheckpointError,
        PeerLostError,
        RankFailure,
        RedistributionError,
        StateMismatchError,
        StillPublishedError,
        StorageTimeoutError,
        UnreachableDirectoryError,
        UnreadableCheckpointError,
        UnsafeCheckpointError,
        UnsupportedStorageError,
    )
    from kempnerforge.checkpoint.manager import CheckpointManager
    from kempnerforge.checkpoint.protocol.verification import LoadReport, VerifyPolicy
    from kempnerforge.checkpoint.settings import CheckpointSettings
    from kempnerforge.checkpoint.state import (
        build_train_state,
        get_rng_state,
        restore_train_state,
        set_rng_state,
    )
    from kempnerforge.checkpoint.state.dataloader import ResumableDataLoader
    from kempnerforge.checkpoint.state.rank_state import RedistributableDataLoader

__all__ = [
    "AsyncCheckpointer",
    "CheckpointError",
    "CheckpointLoadError",
    "CheckpointManager",
    "CheckpointNotFoundError",
    "CheckpointSaveError",
    "CheckpointSettings",
    "CorruptCheckpointError",
    "DirectoryChangedError",
    "DirectoryInUseError",
    "FreezeMismatchError",
    "LoadReport",
    "NewerFormatError",
    "NoUsableCheckpointError",
    "PeerLostError",
    "RankFailure",
    "RedistributableDataLoader",
    "RedistributionError",
    "ResumableDataLoader",
    "StateMismatchError",
    "StillPublishedError",
    "StorageTimeoutError",
    "UnreachableDirectoryError",
    "UnreadableCheckpointError",
    "UnsafeCheckpointError",
    "UnsupportedStorageError",
    "VerifyPolicy",
    "build_train_state",
    "get_rng_state",
    "restore_train_state",
    "set_rng_state",
]

_MODULES = ("async_save", "errors", "manager", "state")
"""Public modules, available as attributes of this package without importing them."""

_HOME = {
    "AsyncCheckpointer": "async_save",
    "CheckpointManager": "manager",
    "CheckpointSettings": "settings",
    "LoadReport": "protocol.verification",
    "RankFailure": "errors",
    "RedistributableDataLoader": "state.rank_state",
    "ResumableDataLoader": "state.dataloader",
    "VerifyPolicy": "protocol.verification",
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
    **dict.fromkeys((name for name in __all__ if name.endswith("_state")), "state"),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
