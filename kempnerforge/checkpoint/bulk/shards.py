"""Shards in the format of torch.distributed.checkpoint, written durably and read without pickle.

Only DCP's planners and file format are used, not its ``save`` and ``load``: those use collectives
that cannot name a lost rank, fsync ``.metadata`` before flushing it, and unpickle whatever they
find. The files can be read by stock ``dcp.load``.
"""

import dataclasses
import pickle
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import (
    DefaultSavePlanner,
)
from torch.distributed.checkpoint.filesystem import FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    Metadata,
    StorageMeta,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    WriteItem,
    WriteItemType,
)
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.archives.plain_values import encode_plain
from kempnerforge.checkpoint.bulk.staging import Image, Stager
from kempnerforge.checkpoint.collection import held_back
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.runtime.process import draw_id
from kempnerforge.checkpoint.runtime.sink import FileSink
from kempnerforge.checkpoint.runtime.storage import at_once
from kempnerforge.checkpoint.state.rank_values import PlannedValues, common_name
from kempnerforge.checkpoint.state.whole import Whole

__all__ = [
    "StagedShards",
    "WrittenShards",
    "encode_metadata",
    "merge_plans",
    "stage_shards",
    "write_shards",
]

_DCP_VERSION = "1.0.0"
_SUFFIX = "0.distcp"  # one file per rank, numbered as in DCP


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedShards:
    """The values that one rank would write; those that were copied are detached from training."""

    planned: PlannedValues
    plan_id: str
    """Equal for two saves of one rank if and only if their plans are equal."""
    positions: Mapping[str, int]
    """By flat name; a rank has one item per name."""
    seeds: Sequence[int]
    """For each compared item: what its dtype and shape add to its checksum."""
    image: Image

    def checksums(self) -> bytes:
        """Computes checksums of the values that other ranks may hold as well, eight bytes each.

        This reads all bytes of those values.
        """
        items = self.planned.plan.items
        names = (items[at].index.fqn for at in self.planned.compared)
        found = (self.image.fingerprint(self.positions[name]) for name in names)
        sums = (one ^ seed for one, seed in zip(found, self.seeds, strict=True))
        return array("Q", sums).tobytes()

    def positions_of(self, plan: SavePlan) -> list[int]:
        """Returns the position of each item of ``plan``, the plan agreed by the ranks."""
        names = (item.index.fqn for item in plan.items)
        # A program's own state dict can contain such names itself.
        return [
            self.positions[name if name in self.positions else common_name(name)] for name in names
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShards:
    """The files that one rank wrote."""

    files: Mapping[str, FileRecord]
    """The files, by name within the shard directory."""
    places: bytes
    """Offset and length of each item, in the order of the rank's plan, eight bytes each."""


class _FlatPlanner(DefaultSavePlanner):
    """Plans a state dict that is flattened already."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False)


_Path = tuple[str | int, ...]
_Structure = list[tuple[Any, Any]]
"""The keys of a dict, each with the traits of its value that matter to a plan; nested for dicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownPlan:
    """A plan, with the data to check that it is still valid."""

    is_coordinator: bool
    structure: _Structure
    planned: PlannedValues
    plan_id: str
    seeds: tuple[int, ...]
    items: tuple[WriteItem, ...]
    """The items, in the order in which they are written."""
    leaves: tuple[int, ...]
    """For each item: position of its value among the leaves of the state dict."""
    objects: dict[str, tuple[bytes, bytes]]
    """By key: a value that is not a tensor, pickled for comparison, and serialised for writing."""
    positions: dict[str, int]


def stage_shards(
    state_dict: dict[str, Any],
    *,
    stager: Stager,
    is_coordinator: bool,
    world_size: int = 1,
    buffers: Callable[[], Collection[str]] = tuple,
) -> StagedShards:
    """Plans this rank's writes of ``state_dict`` and captures its values.

    Not collective. Values that are not tensors are serialised here. The plan of the previous save
    is reused if names, shapes, dtypes and placements are the same.

    Args:
        state_dict: Nested dicts and lists of tensors, DTensors and plain values.
        stager: Copies the tensors; must always be used for the same kind of state dict.
        is_coordinator: Whether this is the first rank of those that share the shard directory.
        world_size: Number of ranks of the job.
        buffers: Returns the flat names of values that are buffers of the model.
    """
    known: _KnownPlan | None = stager.known
    leaves: list[Any] = []
    if (
        known is None
        or known.is_coordinator != is_coordinator
        or not _has_structure(state_dict, known.structure, leaves)
    ):
        known, leaves = _plan(
            state_dict, is_coordinator=is_coordinator, world_size=world_size, buffers=buffers()
        )
        stager.known = known
    with torch.no_grad():
        in_order = [leaves[leaf] for leaf in known.leaves]
        values = [
            # The same as to_local without gradients, at a tenth of the cost.
            value._local_tensor if isinstance(value, DTensor) else _value(known, item, value)
            for item, value in zip(known.items, in_order, strict=True)
        ]
        image = stager.take(known.items, values)
    return StagedShards(
        planned=known.planned,
        plan_id=known.plan_id,
        positions=known.positions,
        seeds=known.seeds,
        image=image,
    )


_LEAVES = (torch.Tensor, str, int, float, Whole)


def _structure(node: Mapping[Any, Any]) -> _Structure:
    return [
        (key, _traits(value) if (below := _below(value)) is None else _structure(below))
        for key, value in node.items()
    ]


def _has_structure(node: Mapping[Any, Any], known: _Structure, leaves: list[Any]) -> bool:
    """Whether a state dict has the structure of an earlier one; adds its leaves in DCP's order."""
    if len(node) != len(known):
        return False
    for (key, value), (known_key, expected) in zip(node.items(), known, strict=True):
        if key is not known_key and (key != known_key or type(key) is not type(known_key)):
            return False
        if isinstance(value, DTensor) and value._spec is expected:
            leaves.append(value)  # the common case
        elif isinstance(value, _LEAVES) or (below := _below(value)) is None:
            traits = _traits(value)
            if traits is not expected and traits != expected:
                return False
            leaves.append(value)
        elif type(expected) is not list or not _has_structure(below, expected, leaves):
            return False
    return True


def _below(value: Any) -> Mapping[Any, Any] | None:
    """Returns the parts into which DCP flattens a value, by key or path; None if it does not."""
    if isinstance(value, _LEAVES):
        return None
    if isinstance(value, dict):
        return value
    flat, paths = flatten_state_dict({"": value})
    if list(paths.values()) == [("",)]:
        return None
    return {_Within(paths[name][1:]): part for name, part in flat.items()}


class _Within(tuple[str | int, ...]):
    """Path of a part within a list, a tuple or an object; a type that no dict key has."""


def _leaves(path: _Path, node: Mapping[Any, Any]) -> Iterator[tuple[_Path, Any]]:
    """Yields the values of a state dict, with the paths and in the order of DCP's flattening."""
    for key, value in node.items():
        here, below = (*path, str(key)), _below(value)
        if below is None:
            yield here, value
        elif below is value:
            yield from _leaves(here, below)
        else:
            yield from (((*here, *inner), part) for inner, part in below.items())


def _traits(value: Any) -> Any:
    """Returns the properties that a plan depends on."""
    if isinstance(value, DTensor):
        return (
            value._spec
        )  # shape, dtype, placements and mesh; usually one object for the tensor's life
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.layout
    return None


def _plan(
    state_dict: dict[str, Any],
    *,
    is_coordinator: bool,
    world_size: int,
    buffers: Collection[str],
) -> tuple[_KnownPlan, list[Any]]:
    """Returns a plan for this state dict, and its leaves."""
    leaves = list(_leaves((), state_dict))
    flat, paths = flatten_state_dict(state_dict)
    if list(paths.values()) != [path for path, _ in leaves]:
        raise TypeError("the state dict holds containers other than dicts, lists and tuples")
    flat = {
        name: value.detach() if isinstance(value, torch.Tensor) else value
        for name, value in flat.items()
    }
    planner = _FlatPlanner()
    planner.set_up_planner(flat, is_coordinator=is_coordinator)
    plan = dataclasses.replace(planner.create_local_plan(), planner_data=paths)
    leaf_of = {name: leaf for leaf, name in enumerate(flat)}
    # Sharded tensors come first and objects, whose length varies, last. Items that a rank leaves to
    # another rank with the same value then interrupt the rest as little as possible.
    order = [WriteItemType.SHARD, WriteItemType.TENSOR, WriteItemType.BYTE_IO]
    items = tuple(sorted(plan.items, key=lambda item: order.index(item.type)))
    compared = tuple(
        at
        for at, item in enumerate(plan.items)
        if world_size > 1 and _may_be_held_by_others(flat[item.index.fqn], world_size)
    )
    known = _KnownPlan(
        is_coordinator=is_coordinator,
        structure=_structure(state_dict),
        planned=PlannedValues(
            plan=plan,
            compared=compared,
            buffers=frozenset(buffers),
            fingerprint=_crc32_of([plan.items[at].index for at in compared]),
        ),
        seeds=tuple(_crc32_of(_form(plan.items[at])) for at in compared),
        plan_id=draw_id(),
        items=items,
        leaves=tuple(leaf_of[item.index.fqn] for item in items),
        objects={},
        positions={item.index.fqn: position for position, item in enumerate(items)},
    )
    return known, [value for _, value in leaves]


def _may_be_held_by_others(value: Any, world_size: int) -> bool:
    """Whether another rank may have an item of the same name and place."""
    if not isinstance(value, DTensor):
        return True
    spread = all(placement.is_shard() for placement in value.placements)
    return not spread or value.device_mesh.size() < world_size


def _form(item: WriteItem) -> object:
    data = item.tensor_data
    return None if data is None else (data.properties.dtype, data.chunk, data.size)


def _crc32_of(described: object) -> int:
    return int(checksum.crc32(repr(described).encode()))


def _value(known: _KnownPlan, item: WriteItem, value: Any) -> torch.Tensor | bytes:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Whole):
        return encode_plain(value.value, what=item.index.fqn)
    # Most values do not change between saves, and comparing costs less than serialising.
    seen, written = known.objects.get(item.index.fqn, (None, b""))
    now = pickle.dumps(value)
    if now != seen:
        written = encode_plain(value, what=item.index.fqn)
        known.objects[item.index.fqn] = (now, written)
    return written


def merge_plans(plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
    """Returns deduplicated plans for all ranks, and the global metadata.

    Args:
        plans: Local plans of all ranks that share a shard directory, in rank order.
    """
    with held_back():
        merged, metadata = DefaultSavePlanner().create_global_plan(plans)
        numbered = FileSystemWriter(".").prepare_global_plan(merged)
    # No rank needs the mappings to write, and the metadata has them already.
    return [dataclasses.replace(plan, planner_data=None) for plan in numbered], metadata


def _file_name(plan: SavePlan) -> str:
    return f"{plan.storage_data.prefix}{_SUFFIX}"


def _nothing() -> None:
    pass


def write_shards(
    directory: Path,
    plan: SavePlan,
    staged: StagedShards,
    *,
    meanwhile: Callable[[], object] = _nothing,
    prefix: str = "",
) -> WrittenShards:
    """Writes this rank's part; durable on return, except its entry in ``directory``.

    Args:
        directory: The shard directory.
        plan: The staged items to write.
        staged: The values.
        meanwhile: Called in a separate thread once the file has been created.
        prefix: Put before the file's name on disk, which the caller then changes.
    """
    wanted = staged.positions_of(plan)
    ordered = sorted(wanted)
    name = _file_name(plan)
    places: dict[int, tuple[int, int]] = {}
    with FileSink(directory / f"{prefix}{name}", direct=staged.image.goes_direct(ordered)) as sink:

        def write() -> None:
            places.update(zip(ordered, staged.image.write(sink, ordered), strict=True))
            sink.close()

        at_once(write, meanwhile)
    numbers = [number for position in wanted for number in places[position]]
    return WrittenShards(files={name: sink.record}, places=array("q", numbers).tobytes())


def encode_metadata(
    metadata: Metadata, written: Iterable[tuple[SavePlan, WrittenShards]], *, save_id: str
) -> bytes:
    """Returns the content of ``.metadata`` for plans and what was written for them."""
    metadata.storage_data = {}
    with held_back():
        for plan, shards in written:
            name = _file_name(plan)
            numbers = iter(array("q", shards.places))
            for item, offset, length in zip(plan.items, numbers, numbers, strict=True):
                metadata.storage_data[item.index] = _StorageInfo(name, offset, length)
    metadata.storage_meta = StorageMeta(save_id=save_id)
    if hasattr(metadata, "version"):
        metadata.version = _DCP_VERSION
    return pickle.dumps(metadata)
