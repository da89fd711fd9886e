"""Values beside model and optimizer (``extra``, the scheduler) that differ by rank.

They are common as a rule, and rank 0 writes them for all. Where the ranks have different values
under one key, each writes its own into its file as well (key ``common``). So does each for a value
that holds a distributed tensor, or another one that a plain file cannot hold (key ``encoded``, see
:mod:`own_state`). The same layout of ranks gets each its own back. Another layout gets rank 0's
where they merely differed, with a warning, and an error where a value was spread over the ranks.
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
    """The part of a train state for ``train_state.pt``, and what only this rank's file can hold.

    Raises:
        TypeError: A value could not be put together again.
    """
    common, encoded = {}, {}
    for key, value in train_state.items():
        if key == "rng" or not needs_encoding(value):  # generators are thousands of plain numbers
            common[key] = value
            continue
        where = f"{key!r} in the train state"
        if key in RANK_KEYS:
            raise TypeError(
                f"{where} holds a tensor that is distributed, nested or of a subclass, and so has "
                "no place in it; keep plain values there"
            )
        require_known_meshes(value, model, where)
        encoded[key] = encode(value, where)
    return common, {_ENCODED: encoded} if encoded else {}


def encode_common(common: Mapping[str, Any]) -> bytes:
    """Content of ``train_state.pt``.

    Raises:
        TypeError: A value holds an object that loading would not rebuild; the first such key.
    """
    try:
        return encode_plain(common, what="the train state")
    except TypeError:
        for key, value in common.items():
            encode_plain(value, what=f"{key!r} in the train state")
        raise


def digests(common: Mapping[str, Any]) -> dict[str, int]:
    """A checksum of each value, the same on two ranks that have the same value."""
    return {key: _digest(value, 0) for key, value in without_rank_part(common).items()}


def with_differing(rank_state: bytes, train_state: bytes, keys: Collection[str]) -> bytes:
    """Content of this rank's file, with its own values of ``keys``."""
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
    """The values that this rank had for itself and that are wanted, for the same layout of ranks.

    Raises:
        StateMismatchError: The model or the program lacks what it takes to build one.
    """
    common, encoded = (
        {key: values[key] for key in values if not exclude.covers(key)}
        for values in (rank_state.get(_COMMON, {}), rank_state.get(_ENCODED, {}))
    )
    return common | {key: revive(encoded[key], model, name=repr(key)) for key in encoded}


def saved_keys(rank_state: Mapping[str, Any]) -> frozenset[str]:
    """Keys of the values that a rank had for itself."""
    return frozenset(rank_state.get(_COMMON, {})) | frozenset(rank_state.get(_ENCODED, {}))


def require_common(rank_state: Mapping[str, Any], exclude: Exclusion, *, path: str) -> None:
    """Refuse, for another layout of ranks, values that were spread over the ranks that saved.

    Args:
        rank_state: Rank 0's.
        exclude: What is not wanted.
        path: Of the checkpoint, for errors.

    Raises:
        RedistributionError: There is one that is wanted.
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
            "ranks are arranged differently; all get rank 0's value of %s", ", ".join(differed)
        )


def _digest(value: Any, crc32: int) -> int:
    """The crc32 of a value and its structure; equal values of one type have equal ones."""
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
