"""Buffers of the model that differ by rank, such as batch statistics that nobody averages.

A plain tensor under one name is taken for one value that all ranks of a stage share, and one of
them writes it. For parameters that holds by construction; a buffer may be each rank's own. So the
ranks tell the checksums of their plain buffers when a save begins, and those that differ are
written by every rank of the stage into a file of its own (``ranks/buffers_00003.pt``), beside the
shared one. The same layout of ranks gets each its own back, another layout the shared one.

Not covered: parameters that differ by rank under one name, which no training means to have;
comparing them would cost a pass over the whole model where it is replicated.
"""

from collections.abc import Iterable, Mapping

import torch
from zlib_ng import zlib_ng

from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.exclusion import Exclusion
from kempnerforge.checkpoint.frames import memory_of
from kempnerforge.checkpoint.model_state import (
    LiveModel,
    is_extra_state,
    plain_buffers,
)

__all__ = ["checksums", "differing", "match", "take"]


def take(live: LiveModel) -> dict[str, torch.Tensor]:
    """Copies of the plain buffers that are saved, on the host, by name; not collective."""
    return {
        name: torch.empty(value.shape, dtype=value.dtype, device="cpu").copy_(value)
        for name, value in plain_buffers(live).items()
    }


def checksums(taken: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """By which ranks see whether they have the same values."""
    return {name: zlib_ng.crc32(memory_of(value)) for name, value in taken.items()}


def differing(told: Iterable[Mapping[str, int]]) -> frozenset[str]:
    """Names that do not have one checksum on all ranks that have them."""
    first: dict[str, int] = {}
    return frozenset(
        name
        for checksums in told
        for name, checksum in checksums.items()
        if first.setdefault(name, checksum) != checksum
    )


def match(
    model: LiveModel, saved: Mapping[str, torch.Tensor], exclude: Exclusion
) -> dict[str, torch.Tensor]:
    """Those of the values that this rank had which the model takes, by name; changes nothing.

    Raises:
        StateMismatchError: A buffer has another shape now.
    """
    live = plain_buffers(model)
    extra = {name for name in model.entries if is_extra_state(name)}
    taken = live.keys() | extra
    wanted = [name for name in saved if name in taken and not exclude.covers(f"model.{name}")]
    for name in wanted:
        if name not in extra and saved[name].shape != live[name].shape:
            raise StateMismatchError(
                f"model.{name}: the checkpoint has shape {tuple(saved[name].shape)}, the model "
                f"has shape {tuple(live[name].shape)}"
            )
    return {name: saved[name] for name in wanted}
