"""The names that training code imports its configuration classes from."""

from kempnerforge.config.checkpoint import (
    AsyncCheckpointMode,
    CheckpointConfig,
    DynamicCheckpointWindow,
)
from kempnerforge.config.vlm import FreezeSpec, FreezeStage, VLMConfig

__all__ = [
    "AsyncCheckpointMode",
    "CheckpointConfig",
    "DynamicCheckpointWindow",
    "FreezeSpec",
    "FreezeStage",
    "VLMConfig",
]
