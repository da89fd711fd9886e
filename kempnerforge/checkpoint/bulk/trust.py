"""Restricts what reading a checkpoint's files can import.

The default, :data:`PLAIN_DATA`, allows numbers, strings, containers, tensors, arrays, and the few
classes that DCP's ``.metadata`` consists of. Old files from other programs sometimes hold objects.
:data:`ANY_OBJECT`, selected by ``allow_unsafe_pickle``, rebuilds those too, which lets the author
of such a file run code. It does so only for files that hold objects, and logs a warning.
"""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata

from kempnerforge.checkpoint.archives.plain_values import decode_plain
from kempnerforge.checkpoint.archives.shard_metadata import (
    check_metadata,
    decode_metadata,
    rebuild_metadata,
)
from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnsafeCheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["ANY_OBJECT", "PLAIN_DATA", "Trust"]

logger = logging.getLogger(__name__)

_HINT = (
    "; if it comes from a source that you trust, set allow_unsafe_pickle in the checkpoint "
    "configuration, which lets its author run code in this process"
)


@dataclass(frozen=True, slots=True)
class Trust:
    """How the two kinds of pickled files of a checkpoint are read."""

    unpickle: Callable[[UnsafeCheckpointError, Callable[[], Any]], Any]
    """Decides what happens to a file that asks for objects: refuses it, or rebuilds them."""

    def values(self, data: bytes, *, where: str) -> Any:
        """Reads the content of ``train_state.pt``, of a rank's file, or of a value in a shard.

        Raises:
            UnsafeCheckpointError: It asks for objects, and that is not allowed.
            CorruptCheckpointError: It cannot be read.
        """
        try:
            return decode_plain(data, where=where)
        except UnsafeCheckpointError as refusal:
            return self.unpickle(refusal, lambda: _values(data))

    def metadata(self, data: bytes, *, where: str) -> Metadata:
        """Reads the content of ``.metadata``; raises as :meth:`values` does."""
        try:
            return decode_metadata(data, where=where)
        except UnsafeCheckpointError as refusal:
            found = self.unpickle(refusal, lambda: rebuild_metadata(data))
        if not isinstance(found, Metadata):
            raise CorruptCheckpointError(f"{where}: is not DCP metadata", path=where)
        return found

    def require_complete(self, directory: Path, storage: Storage) -> None:
        """As :meth:`candidates.ForeignShards.require_complete`."""
        file = directory / layout.SHARD_METADATA
        found = self.metadata(storage.read(file), where=str(file))
        check_metadata(directory, found, size_of=storage.size)


def _values(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)


def _refuse(refusal: UnsafeCheckpointError, rebuild: Callable[[], Any]) -> Any:
    del rebuild
    raise UnsafeCheckpointError(f"{refusal}{_HINT}", path=refusal.path) from refusal


def _rebuild(refusal: UnsafeCheckpointError, rebuild: Callable[[], Any]) -> Any:
    logger.warning("allow_unsafe_pickle: rebuilding objects although %s", refusal)
    try:
        return rebuild()
    except Exception as error:  # unpickling can raise anything
        raise CorruptCheckpointError(
            f"{refusal.path}: cannot be read: {error!r}", path=refusal.path
        ) from error


PLAIN_DATA = Trust(_refuse)
ANY_OBJECT = Trust(_rebuild)
