"""Copies of the state that a background save writes while training changes the original.

Buffers are kept from save to save, so a save that copies into them must not begin before the
previous one has written them; the manager waits for that. Where a writer was given up on and may
still read them, they are dropped instead of being filled again.
"""

from typing import Protocol

import torch
from torch.distributed.checkpoint.metadata import MetadataIndex

__all__ = ["KeptBuffers", "LiveTensors", "Stager"]


class Stager(Protocol):
    """Takes tensors at the moment of a save."""

    def copy(self, index: MetadataIndex, tensor: torch.Tensor) -> torch.Tensor:
        """What to write for ``tensor``."""

    def finish(self) -> None:
        """Return once every copy is complete."""

    def drop(self) -> None:
        """Never fill the present buffers again."""


class LiveTensors:
    """No copy: for a save that training waits for."""

    def copy(self, index: MetadataIndex, tensor: torch.Tensor) -> torch.Tensor:
        del index
        return tensor

    def finish(self) -> None:
        pass

    def drop(self) -> None:
        pass


class KeptBuffers:
    """Host copies in buffers that are allocated once.

    Args:
        pinned: Copy accelerator tensors into page-locked memory, without waiting for each.
            Tensors on the host, and machines without CUDA, use plain memory.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned and torch.cuda.is_available()
        self._buffers: dict[MetadataIndex, torch.Tensor] = {}
        self._devices: set[torch.device] = set()

    def copy(self, index: MetadataIndex, tensor: torch.Tensor) -> torch.Tensor:
        pin = self._pinned and tensor.is_cuda
        buffer = self._buffers.get(index)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pin)
            self._buffers[index] = buffer
        buffer.copy_(tensor, non_blocking=pin)
        if pin:
            self._devices.add(tensor.device)
        return buffer

    def finish(self) -> None:
        for device in self._devices:
            torch.cuda.current_stream(device).synchronize()
        self._devices.clear()

    def drop(self) -> None:
        self._buffers = {}
