"""Managers that do the wrong thing when the storage answers an error."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.manager import CheckpointManager
from tests.harness.simple_manager import SimpleManager

_PAUSE_S = 0.2
"""Between two attempts: what they do until the deadline is judged for longer than it took."""


class SaysNothing(CheckpointManager):
    """N02: a save that failed is only logged, and the caller is told that all is well."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().save(*args, **kwargs)
        except CheckpointError as error:
            print("checkpoint:", error)


class NeverRecovers(CheckpointManager):
    """L15: after one failed save every later one raises the same error."""

    _error: CheckpointError | None = None

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._error is not None:
            raise self._error
        try:
            super().save(*args, **kwargs)
        except CheckpointError as error:
            self._error = error
            raise


class OneRankKnows(CheckpointManager):
    """M01: the error of one rank stays its own, and the others are not told why."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().save(*args, **kwargs)
        except CheckpointError as error:
            if dist.get_rank() in [failure.rank for failure in error.failures]:
                raise
            raise RuntimeError("the checkpoint was not saved") from None


class TriesForEver(CheckpointManager):
    """M09: a save that cannot succeed is tried again and again, and training stands still."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        while True:
            try:
                return super().save(*args, **kwargs)
            except CheckpointError as error:
                print("checkpoint, once more:", error)
                time.sleep(_PAUSE_S)


class TakesHalfForAll(SimpleManager):
    """A write that took only some of the bytes is taken for a whole one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        Path.write_text = _write_once  # type: ignore[method-assign, assignment]
        super().__init__(*args, **kwargs)


def _write_once(path: Path, text: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        return os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
