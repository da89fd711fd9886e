"""The cost of agreement, plans, manifest and choice for rank 0 and for every other rank, by ranks.

    python -m benchmarks.scale [--ranks 8 64 512 2048] [--parameters 100]

The package's own functions on hand-made plans of that many ranks, without processes and without a
network: several real ranks in one process would plan wrongly. Each parameter is sharded evenly over
all ranks, with two moments. Seconds are those of one core; bytes are what rank 0 sends and receives
in total, and the size of files. The printed tables are those of docs/scale.md.
"""

from __future__ import annotations

import argparse
import pickle
import platform
import secrets
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)

from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.checkpoint.bulk.plans import Merged, PlanBook, Proposed
from kempnerforge.checkpoint.bulk.shards import WrittenShards
from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.checkpoint.format.arrangement import Arrangement
from kempnerforge.checkpoint.format.manifest import FileRecord, Manifest
from kempnerforge.checkpoint.protocol.proposal import Choice, LoadProposal
from kempnerforge.checkpoint.protocol.verification import VerifyPolicy
from kempnerforge.checkpoint.runtime.collective import pack_replies
from kempnerforge.checkpoint.state.rank_values import PlannedValues

T = TypeVar("T")

_ROWS, _COLUMNS = 16, 4096  # of the part of a parameter that one rank holds
_PARTS = ("model.{}", "optimizer.state.{}.exp_avg", "optimizer.state.{}.exp_avg_sq")


@dataclass
class Cost:
    """The cost for one number of ranks: seconds and bytes by action."""

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def timed(self, what: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = call()
        self.seconds[what] = time.perf_counter() - began
        return result


def _plan(rank: int, ranks: int, parameters: int) -> SavePlan:
    """Returns the plan of a rank that holds an even share of every parameter and its moments."""
    size = torch.Size((_ROWS * ranks, _COLUMNS))
    chunk = ChunkStorageMetadata(
        offsets=torch.Size((_ROWS * rank, 0)), sizes=torch.Size((_ROWS, _COLUMNS))
    )
    data = TensorWriteData(chunk=chunk, properties=TensorProperties(dtype=torch.float32), size=size)
    names = [part.format(f"layers.{n}.weight") for n in range(parameters) for part in _PARTS]
    items = [
        WriteItem(
            index=MetadataIndex(name, chunk.offsets, rank),
            type=WriteItemType.SHARD,
            tensor_data=data,
        )
        for name in names
    ]
    return SavePlan(items, planner_data={name: tuple(name.split(".")) for name in names})


def _proposals(plans: Sequence[SavePlan], holds: str | None) -> list[Proposed]:
    """Returns the proposals of the first save, or of one that changes nothing."""
    return [
        Proposed(
            plan_id=f"{rank:016x}", planned=None if holds else PlannedValues(plan=plan), holds=holds
        )
        for rank, plan in enumerate(plans)
    ]


def _written(rank: int, items: int) -> WrittenShards:
    length = _ROWS * _COLUMNS * 4
    places = [number for item in range(items) for number in (item * length, length)]
    name = f"__{rank}_0.distcp"
    record = FileRecord(size=items * length, crc32=rank)
    return WrittenShards(files={name: record}, places=array("q", places).tobytes())


def _sent(packed: Sequence[Sequence[torch.Tensor]]) -> int:
    return sum(part.nbytes for parts in packed[1:] for part in parts)


def _bytes(values: Sequence[object]) -> int:
    return sum(len(pickle.dumps(value)) for value in values)


def measure(ranks: int, parameters: int) -> Cost:
    """Times a first save, a second one, and a load."""
    cost, book = Cost(), PlanBook()
    plans = [_plan(rank, ranks, parameters) for rank in range(ranks)]
    written = [_written(rank, len(plans[0].items)) for rank in range(ranks)]
    merged, _ = _save(cost, "first save", book, _proposals(plans, None), written)
    _, metadata = _save(cost, "later saves", book, _proposals(plans, merged.merger), written)
    cost.bytes["file: .metadata"] = len(metadata)
    _manifest_and_choice(cost, written, Arrangement(stage_of_rank=(None,) * ranks, meshes=()))
    cost.timed("each rank: read .metadata", partial(decode_metadata, metadata, where="here"))
    return cost


def _save(
    cost: Cost,
    save: str,
    book: PlanBook,
    proposed: Sequence[Proposed],
    written: Sequence[WrittenShards],
) -> tuple[Merged, bytes]:
    """Does rank 0's part of a save, except for the disk."""
    everyone: dict[int | None, tuple[int, ...]] = {None: tuple(range(len(proposed)))}
    cost.bytes[f"{save}: proposals to rank 0"] = _bytes(proposed)
    merged = cost.timed(f"{save}: merge plans", partial(book.merge, proposed, everyone))
    assigned = [merged.assign(rank, one) for rank, one in enumerate(proposed)]
    packed = cost.timed(f"{save}: pack assignments", partial(pack_replies, assigned))
    cost.bytes[f"{save}: assignments from rank 0"] = _sent(packed)
    cost.bytes[f"{save}: reports to rank 0"] = _bytes(written)
    encode = partial(merged.encode, None, written, save_id=secrets.token_hex(8))
    return merged, cost.timed(f"{save}: write .metadata", encode)


def _manifest_and_choice(
    cost: Cost, written: Sequence[WrittenShards], arrangement: Arrangement
) -> None:
    ranks = len(written)
    files = {name: record for one in written for name, record in one.files.items()}
    files |= {layout.format_rank_file(r): FileRecord(size=9, crc32=9) for r in range(ranks)}
    sealed = Manifest(
        save_id=secrets.token_hex(8),
        step=1,
        tokens_seen=1,
        sequence=1,
        parent=None,
        world_size=ranks,
        stages=None,
        layout=arrangement.to_json(),
        files=files,
    )
    data = cost.timed("each save: write the manifest", lambda: manifest.encode(sealed))
    cost.bytes["file: manifest.json"] = len(data)
    found = cost.timed("load: read the manifest", lambda: manifest.decode(data, where="here"))
    choice = Choice(path=Path("step_1"), manifest=found)
    told = (None,) * ranks
    offer = cost.timed(
        "load: make the offer",
        lambda: replace(LoadProposal.of(choice, verify=VerifyPolicy.full), openings=told),
    )
    packed = cost.timed("load: pack the offer", lambda: pack_replies([offer] * ranks))
    cost.bytes["load: offers from rank 0"] = _sent(packed)
    cost.timed("each rank: open the offer", lambda: offer.open(rank=0, world_size=ranks))


def _print(title: str, rows: dict[str, list[str]], ranks: Sequence[int]) -> None:
    print(f"\n| {title} | {' | '.join(map(str, ranks))} |")
    print(f"|---|{'---|' * len(ranks)}")
    for what, cells in rows.items():
        print(f"| {what} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", nargs="+", type=int, default=[8, 64, 512, 2048])
    parser.add_argument("--parameters", type=int, default=100)
    options = parser.parse_args()
    print(f"{platform.platform()}, torch {torch.__version__}, {options.parameters} parameters")
    costs = [measure(ranks, options.parameters) for ranks in options.ranks]
    seconds = {what: [f"{cost.seconds[what]:.4f}" for cost in costs] for what in costs[0].seconds}
    sizes = {what: [f"{cost.bytes[what]:,}" for cost in costs] for what in costs[0].bytes}
    _print("seconds, by ranks", seconds, options.ranks)
    _print("bytes, by ranks", sizes, options.ranks)


if __name__ == "__main__":
    main()
