"""Values besides model and optimizer (``extra``, the scheduler) that differ by rank.

Usually all ranks have the same values, and rank 0 writes them for all. If the ranks have different
values under one key, each rank also writes its own to its file (key ``common``). The same holds for
a value with a distributed tensor, or with another tensor that a plain file cannot hold (key
``encoded``, see :mod:`rank_local`). In the same layout, each rank gets its own values back. Another
layout gets rank 0's values with a warning if they merely differed, and an error if a value was
spread over the ranks.
"""

import logging
import struct
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from kempnerforge.checkpoint.archives.archive_template import bytes_of
from kempnerforge.checkpoint.archives.plain_values import decode_plain, encode_plain
from kempnerforge.checkpoint.errors import RedistributionError
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.rank_local import (
    encode,
    needs_encoding,
    require_known_meshes,
    revive,
)
from kempnerforge.checkpoint.state.rank_state import RANK_KEYS, without_rank_part
from kempnerforge.checkpoint.state.tensor_kinds import is_dense

__all__ = [
    "digests",
    "divide",
    "encode_common",
    "require_common",
    "saved_keys",
    "values_of_rank",
    "with_differing",
]

logger = logging.getLogger(__name__)

_COMMON, _ENCODED, _DIFFERING = "common", "encoded", "differing"


def divide(
    train_state: Mapping[str, Any], model: nn.Module
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a train state into the part for ``train_state.pt`` and the part for this rank's file.

    Raises:
        TypeError: A value could not be restored.
    """
    common, encoded = {}, {}
    for key, value in train_state.items():
        if key == "rng" or not needs_encoding(value):  # generators are thousands of plain numbers
            common[key] = value
            continue
        where = f"{key!r} in the train state"
        if key in RANK_KEYS:
            raise TypeError(
                f"{where} holds a tensor that is distributed, nested or of a subclass, and cannot "
                "be saved there; keep plain values in it"
            )
        require_known_meshes(value, model, where)
        encoded[key] = encode(value, where)
    return common, {_ENCODED: encoded} if encoded else {}


def encode_common(common: Mapping[str, Any]) -> bytes:
    """Returns the content of ``train_state.pt``.

    Raises:
        TypeError: A value holds an object that loading would not rebuild; names the first such key.
    """
    try:
        return encode_plain(common, what="the train state")
    except TypeError:
        for key, value in common.items():
            encode_plain(value, what=f"{key!r} in the train state")
        raise


def digests(common: Mapping[str, Any]) -> dict[str, int]:
    """Returns a checksum of each value, equal on ranks that have equal values."""
    return {key: _digest(value, 0) for key, value in without_rank_part(common).items()}


def with_differing(rank_state: bytes, train_state: bytes, keys: Collection[str]) -> bytes:
    """Returns the content of this rank's file, with its own values of ``keys`` added."""
    if not keys:
        return rank_state
    mine = decode_plain(rank_state, where="the state of this rank")
    common = decode_plain(train_state, where="the train state")
    mine[_COMMON] = {key: common[key] for key in keys if key in common}
    mine[_DIFFERING] = sorted(keys)  # rank 0 may have none
    return encode_plain(mine, what="the state of this rank")


def values_of_rank(
    rank_state: Mapping[str, Any], model: nn.Module, exclude: Exclusion
) -> dict[str, Any]:
    """Returns this rank's own saved values, for the same layout of ranks.

    Raises:
        StateMismatchError: The model has no matching mesh, or the program lacks a tensor class.
    """
    common, encoded = (
        {key: values[key] for key in values if not exclude.covers(key)}
        for values in (rank_state.get(_COMMON, {}), rank_state.get(_ENCODED, {}))
    )
    return common | {key: revive(encoded[key], model, name=repr(key)) for key in encoded}


def saved_keys(rank_state: Mapping[str, Any]) -> frozenset[str]:
    """Returns the keys of a rank's own saved values."""
    return frozenset(rank_state.get(_COMMON, {})) | frozenset(rank_state.get(_ENCODED, {}))


def require_common(rank_state: Mapping[str, Any], exclude: Exclusion, *, path: str) -> None:
    """Refuses, in another layout of ranks, values that were spread over the ranks that saved them.

    Args:
        rank_state: The content of rank 0's file.
        exclude: Keys that are not loaded.
        path: Path of the checkpoint, for errors.

    Raises:
        RedistributionError: There is such a value, and it is not excluded.
    """
    bound = sorted(key for key in rank_state.get(_ENCODED, {}) if not exclude.covers(key))
    if bound:
        raise RedistributionError(
            f"{path}: {', '.join(map(repr, bound))} belongs to single ranks of the layout that "
            "saved it, since it holds distributed tensors; resume with the same layout of ranks, "
            f"or pass exclude_keys=[{bound[0]!r}]",
            path=path,
        )
    differing = rank_state.get(_DIFFERING, ())
    differed = sorted(key for key in differing if not exclude.covers(key))
    if differed:
        logger.warning(
            "the layout of ranks has changed; all get rank 0's value of %s", ", ".join(differed)
        )


def _digest(value: Any, crc32: int) -> int:
    """Returns the crc32 of a value and its structure, equal for equal values of one type."""
    crc32 = checksum.crc32(type(value).__qualname__.encode(), crc32)
    if isinstance(value, torch.Tensor):
        return _digest_of_tensor(value, crc32)
    if isinstance(value, Mapping):
        crc32 = checksum.crc32(struct.pack("<q", len(value)), crc32)
        for key, item in value.items():
            crc32 = _digest(item, _digest(key, crc32))
        return crc32
    if isinstance(value, list | tuple):
        crc32 = checksum.crc32(struct.pack("<q", len(value)), crc32)
        for item in value:
            crc32 = _digest(item, crc32)
        return crc32
    if isinstance(value, np.ndarray | np.generic):
        form = repr((value.dtype.str, value.shape)).encode()
        return int(checksum.crc32(value.tobytes(), checksum.crc32(form, crc32)))
    return int(checksum.crc32(repr(value).encode(errors="backslashreplace"), crc32))


def _digest_of_tensor(value: torch.Tensor, crc32: int) -> int:
    crc32 = checksum.crc32(repr((value.dtype, value.shape, value.layout)).encode(), crc32)
    dense = is_dense(value)
    data = bytes_of(value) if dense else encode_plain(value.detach(), what="a tensor")
    return int(checksum.crc32(data, crc32))
