"""The documented module from which training code imports the configuration classes."""

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
