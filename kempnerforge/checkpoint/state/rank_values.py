"""Values that differ by rank under one name, and how a checkpoint keeps each rank's own.

Ranks that share a shard directory save each name once: the first rank that has it writes it. That
is right if all have the same value. It is wrong for the experts of an expert-parallel model, for
moments that each rank computes separately, for distributed tensors of one name on different meshes,
and for a moment that only some ranks have. So the ranks exchange a checksum of every value that
another rank may hold as well. If the checksums differ, each rank's value is written under a name of
its own::

    model.experts.weight             one value, equal on all ranks that have it
    ranks.3.model.experts.weight     rank 3's own

Buffers and extra state, numbers and other plain values in the optimizer's state, and options of
parameter groups are also kept under the common name, with the value of the first rank, for other
layouts. Parameters and moments are not, so that another layout reports them as missing. In the same
layout, each rank sees its own values under the common names (:func:`seen_by`).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)

__all__ = [
    "PlannedValues",
    "Seen",
    "common_name",
    "missing_names",
    "own_name",
    "seen_by",
    "unequal_names",
    "with_own_names",
]

_RANKS = "ranks"
_MODEL = "model"
_MOMENTS = ("optimizer", "state")
_OPTIONS = ("optimizer", "param_groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedValues:
    """The values that one rank would write."""

    plan: SavePlan
    compared: tuple[int, ...] = ()
    """Positions in the plan of the items that other ranks may hold as well."""
    buffers: frozenset[str] = frozenset()
    """Flat names of values that are buffers of the model."""
    fingerprint: int = 0
    """Checksum of the names and places of the compared items."""


def own_name(name: str, rank: int) -> str:
    """Returns the name under which a rank's own value is saved."""
    return f"{_RANKS}.{rank}.{name}"


def common_name(name: str) -> str:
    """Reverses :func:`own_name`; returns any other name unchanged."""
    parts = name.split(".", 2)
    return parts[2] if len(parts) == 3 and parts[0] == _RANKS and parts[1].isdigit() else name


def unequal_names(
    planned: Mapping[int, PlannedValues], checksums: Mapping[int, Sequence[int]]
) -> frozenset[str]:
    """Returns the names whose value is not equal on all ranks that have them.

    Args:
        planned: By rank, for the ranks that share a shard directory.
        checksums: By rank, one for each compared item, over its bytes, dtype and shape.
    """
    distinct = {(one.fingerprint, bytes(checksums[rank])) for rank, one in planned.items()}
    if len(distinct) == 1:
        return frozenset()
    first: dict[tuple[str, tuple[int, ...]], int] = {}
    unequal = set()
    for rank, one in planned.items():
        for position, checksum in zip(one.compared, checksums[rank], strict=True):
            index = one.plan.items[position].index
            # A tensor with another number of axes, or a value that is not a tensor, has the same
            # place in another form.
            begin = tuple(index.offset or ())
            place = index.fqn, begin if any(begin) else ()
            if first.setdefault(place, checksum) != checksum:
                unequal.add(index.fqn)
    return frozenset(unequal)


def missing_names(planned: Mapping[int, PlannedValues]) -> frozenset[str]:
    """Returns moments missing on a rank that has the parameter, and options missing on any rank."""
    names = {
        rank: tuple(item.index.fqn for item in one.plan.items) for rank, one in planned.items()
    }
    if len(set(names.values())) <= 1:
        return frozenset()
    ranks_of: dict[str, set[int]] = {}
    for rank, mine in names.items():
        for name in mine:
            ranks_of.setdefault(name, set()).add(rank)
    paths = {
        name: path
        for one in planned.values()
        for name, path in (one.plan.planner_data or {}).items()
    }
    every = set(planned)
    return frozenset(
        name
        for name, path in paths.items()
        if name in ranks_of
        and (
            (
                tuple(path[:2]) == _MOMENTS
                and ranks_of[name] != ranks_of.get(f"model.{path[2]}", every)
            )
            # Each rank numbers its groups separately.
            or (tuple(path[:2]) == _OPTIONS and ranks_of[name] != every)
        )
    )


def with_own_names(
    planned: Mapping[int, PlannedValues], names: frozenset[str]
) -> dict[int, SavePlan]:
    """Returns the plans of ranks that share a shard directory, with own values for ``names``."""
    found = {}
    common = _of_single_ranks(planned, names)  # or taken already
    for rank, one in planned.items():
        items: list[WriteItem] = []
        paths = dict(one.plan.planner_data or {})
        for item in one.plan.items:
            name = item.index.fqn
            if name not in names:
                items.append(item)
                continue
            items.append(_own_item(item, rank))
            paths[own_name(name, rank)] = (_RANKS, str(rank), *paths[name])
            if name not in common:
                common.add(name)
                items.append(item)
            else:
                del paths[name]
        found[rank] = dataclasses.replace(one.plan, items=items, planner_data=paths)
    return found


def _of_single_ranks(planned: Mapping[int, PlannedValues], names: frozenset[str]) -> set[str]:
    """Returns the names of which no rank's value is kept for other layouts."""
    return {
        item.index.fqn
        for one in planned.values()
        for item in one.plan.items
        if item.index.fqn in names
        and not _also_common(item, (one.plan.planner_data or {})[item.index.fqn], one.buffers)
    }


def _also_common(item: WriteItem, path: Sequence[Any], buffers: frozenset[str]) -> bool:
    if tuple(path[:2]) == _OPTIONS or item.index.fqn in buffers:
        return True
    if path[0] == _MODEL:
        return False
    return item.tensor_data is None or not item.tensor_data.size  # a number


def _own_item(item: WriteItem, rank: int) -> WriteItem:
    """Returns the same item, as a whole value of one rank."""
    name = own_name(item.index.fqn, rank)
    data = item.tensor_data
    if data is None:
        return dataclasses.replace(item, index=MetadataIndex(name))
    sizes = data.chunk.sizes
    origin = torch.Size([0] * len(sizes))
    whole = TensorWriteData(
        chunk=ChunkStorageMetadata(offsets=origin, sizes=sizes),
        properties=data.properties,
        size=sizes,
    )
    index = MetadataIndex(name, origin)
    return WriteItem(index=index, type=WriteItemType.TENSOR, tensor_data=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The metadata of a shard directory, as seen by one rank."""

    metadata: Metadata
    """The metadata, with this rank's own values under their common names."""
    own: frozenset[str]
    """Names of those."""
    common: frozenset[str]
    """Names that differed by rank, of which this rank gets the first rank's value."""
    absent: frozenset[str]
    """Names without a value for this rank, because the layout of ranks has changed."""


def seen_by(metadata: Metadata, rank: int | None) -> Seen:
    """Returns one rank's view of a shard directory.

    Args:
        metadata: The metadata as saved.
        rank: The saved rank whose own values to use; None if the layout of ranks has changed, so
            that none apply.
    """
    entries = metadata.state_dict_metadata
    own_keys = [key for key in entries if common_name(key) != key]
    if not own_keys:
        return Seen(metadata=metadata, own=frozenset(), common=frozenset(), absent=frozenset())
    differing = frozenset(map(common_name, own_keys))
    mine = {common_name(key): key for key in own_keys if rank is not None and _is_of(key, rank)}
    common = entries.keys() - set(own_keys)
    if rank is not None:
        common -= differing
    seen = {key: entries[key] for key in entries if key in common}
    seen.update({key: entries[own_key] for key, own_key in mine.items()})
    paths = dict(metadata.planner_data or {})
    paths.update({key: tuple(paths.get(own_key, ())[2:]) for key, own_key in mine.items()})
    return Seen(
        metadata=dataclasses.replace(
            metadata,
            state_dict_metadata=seen,
            planner_data={key: path for key, path in paths.items() if key in seen},
            storage_data=_places(metadata, common, mine),
        ),
        own=frozenset(mine),
        common=differing & common,
        absent=differing - seen.keys() if rank is None else frozenset(),
    )


def _is_of(key: str, rank: int) -> bool:
    return key.startswith(own_name("", rank))


def _places(
    metadata: Metadata, common: Iterable[str], mine: Mapping[str, str]
) -> dict[MetadataIndex, Any]:
    wanted, renamed = frozenset(common), {own: name for name, own in mine.items()}
    places = {}
    for index, stored in (metadata.storage_data or {}).items():
        if index.fqn in wanted:
            places[index] = stored
        elif index.fqn in renamed:
            places[dataclasses.replace(index, fqn=renamed[index.fqn])] = stored
    return places
