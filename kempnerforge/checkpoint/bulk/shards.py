"""Shards in the format of torch.distributed.checkpoint, written durably and read without pickle.

Only DCP's planners and file format are used, not its ``save`` and ``load``: those run collectives
that cannot name a rank that is lost, fsync ``.metadata`` before it is flushed, and unpickle
whatever they find. What is written stays readable by stock ``dcp.load``.
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
_SUFFIX = "0.distcp"  # one file a rank, numbered as DCP does


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedShards:
    """The values that one rank would write, detached from training where they were copied."""

    planned: PlannedValues
    plan_id: str
    """Equal for two saves of one rank exactly if their plans are equal."""
    positions: Mapping[str, int]
    """By flat name; a rank has one item of each."""
    seeds: Sequence[int]
    """For each compared item: what its dtype and shape add to its checksum."""
    image: Image

    def checksums(self) -> bytes:
        """Of the values that other ranks may hold as well, eight bytes each.

        Takes a pass over those values.
        """
        items = self.planned.plan.items
        names = (items[at].index.fqn for at in self.planned.compared)
        found = (self.image.fingerprint(self.positions[name]) for name in names)
        sums = (one ^ seed for one, seed in zip(found, self.seeds, strict=True))
        return array("Q", sums).tobytes()

    def positions_of(self, plan: SavePlan) -> list[int]:
        """Position of each item of ``plan``, which the ranks agreed on."""
        names = (item.index.fqn for item in plan.items)
        # A state dict of a program's own may have such names itself.
        return [
            self.positions[name if name in self.positions else common_name(name)] for name in names
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShards:
    """The files that one rank wrote."""

    files: Mapping[str, FileRecord]
    """By name within the shard directory."""
    places: bytes
    """Offset and length of each item of the rank's plan in its order, eight bytes each."""


class _FlatPlanner(DefaultSavePlanner):
    """Plans a state dict that was flattened before."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False)


_Path = tuple[str | int, ...]
_Structure = list[tuple[Any, Any]]
"""Of a dict: each key, and what a plan depends on in its value; a list again where it is a dict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownPlan:
    """A plan, and by what to see that it still holds."""

    is_coordinator: bool
    structure: _Structure
    planned: PlannedValues
    plan_id: str
    seeds: tuple[int, ...]
    items: tuple[WriteItem, ...]
    """In the order in which they are written."""
    leaves: tuple[int, ...]
    """By item: position of its value among the leaves of the state dict."""
    objects: dict[str, tuple[bytes, bytes]]
    """By key: a value that is no tensor, pickled for comparison, and as it is written."""
    positions: dict[str, int]


def stage_shards(
    state_dict: dict[str, Any],
    *,
    stager: Stager,
    is_coordinator: bool,
    world_size: int = 1,
    buffers: Callable[[], Collection[str]] = tuple,
) -> StagedShards:
    """Plan this rank's writes of ``state_dict`` and take its values.

    Not collective. Values that are not tensors are serialised here. The plan of the save before is
    used again where names, shapes, dtypes and placements are the same.

    Args:
        state_dict: Nested dicts and lists of tensors, DTensors and plain values.
        stager: Takes the tensors; of one rank and one kind of state dict.
        is_coordinator: Whether this is the first rank of those that share the shard directory.
        world_size: Ranks of the job.
        buffers: Says the flat names of values that are buffers of the model.
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
            # What to_local gives without gradients, at a tenth of its cost.
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
            leaves.append(value)  # nearly all there is
        elif isinstance(value, _LEAVES) or (below := _below(value)) is None:
            traits = _traits(value)
            if traits is not expected and traits != expected:
                return False
            leaves.append(value)
        elif type(expected) is not list or not _has_structure(below, expected, leaves):
            return False
    return True


def _below(value: Any) -> Mapping[Any, Any] | None:
    """The parts into which DCP flattens a value, by key or by path; None if it leaves it whole."""
    if isinstance(value, _LEAVES):
        return None
    if isinstance(value, dict):
        return value
    flat, paths = flatten_state_dict({"": value})
    if list(paths.values()) == [("",)]:
        return None
    return {_Within(paths[name][1:]): part for name, part in flat.items()}


class _Within(tuple[str | int, ...]):
    """Path of a part within a list, a tuple or an object; no key of a dict is of this type."""


def _leaves(path: _Path, node: Mapping[Any, Any]) -> Iterator[tuple[_Path, Any]]:
    """The values of a state dict, in the order and by the paths that DCP flattens it to."""
    for key, value in node.items():
        here, below = (*path, str(key)), _below(value)
        if below is None:
            yield here, value
        elif below is value:
            yield from _leaves(here, below)
        else:
            yield from (((*here, *inner), part) for inner, part in below.items())


def _traits(value: Any) -> Any:
    """The properties that a plan depends on."""
    if isinstance(value, DTensor):
        return value._spec  # shape, dtype, placements and mesh; one object for life, as a rule
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
    """A plan for this state dict, and the leaves of it."""
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
    # Sharded tensors stand first and objects, whose length varies, last, so that what a rank leaves
    # to another one that has the same interrupts the rest as little as possible.
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
    """Whether another rank may offer an item of the same name and place."""
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
    # Most values stay as they are from save to save; comparing costs less than serialising.
    seen, written = known.objects.get(item.index.fqn, (None, b""))
    now = pickle.dumps(value)
    if now != seen:
        written = encode_plain(value, what=item.index.fqn)
        known.objects[item.index.fqn] = (now, written)
    return written


def merge_plans(plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
    """Deduplicated plans for all ranks, and the metadata of the whole.

    Args:
        plans: Local plans of all ranks that share a shard directory, in rank order.
    """
    with held_back():
        merged, metadata = DefaultSavePlanner().create_global_plan(plans)
        numbered = FileSystemWriter(".").prepare_global_plan(merged)
    # The mappings are in the metadata already; no rank needs them to write.
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
) -> WrittenShards:
    """Write this rank's part; durable on return, but for its name in ``directory``.

    Args:
        directory: Where to.
        plan: What of that which was staged.
        staged: The values.
        meanwhile: Called once the file has its name, in a thread of its own.
    """
    wanted = staged.positions_of(plan)
    ordered = sorted(wanted)
    name = _file_name(plan)
    places: dict[int, tuple[int, int]] = {}
    with FileSink(directory / name, direct=staged.image.goes_direct(ordered)) as sink:

        def write() -> None:
            places.update(zip(ordered, staged.image.write(sink, ordered), strict=True))
            sink.close()

        at_once(write, meanwhile)
    numbers = [number for position in wanted for number in places[position]]
    return WrittenShards(files={name: sink.record}, places=array("q", numbers).tobytes())


def encode_metadata(
    metadata: Metadata, written: Iterable[tuple[SavePlan, WrittenShards]], *, save_id: str
) -> bytes:
    """Content of ``.metadata`` for plans and what was written for them."""
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
