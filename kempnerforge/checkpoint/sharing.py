"""Who verifies which file of a checkpoint: where the ranks are as they were, each what it wrote.

Every rank works its own share out of the manifest, so that nobody has to be told.
"""

from kempnerforge.checkpoint import layout
from kempnerforge.checkpoint.manifest import FileRecord, Manifest

__all__ = ["share_of"]


def share_of(found: Manifest, *, rank: int, world_size: int) -> dict[str, FileRecord]:
    """The files that one of ``world_size`` ranks answers for; the shares of all are all files."""
    peers = _ranks_by_stage(found)
    share = {}
    for number, (name, record) in enumerate(sorted(found.files.items())):
        writer = layout.parse_rank_file(name)
        if writer is None:
            writer = _writer_of_shard(name, peers)
        if (number if writer is None else writer) % world_size == rank:
            share[name] = record
    return share


def _ranks_by_stage(found: Manifest) -> dict[int, list[int]]:
    stages = found.layout.get("stage_of_rank")
    peers: dict[int, list[int]] = {}
    for rank, stage in enumerate(stages if type(stages) is list else []):
        if type(stage) is int:
            peers.setdefault(stage, []).append(rank)
    return peers


def _writer_of_shard(name: str, peers: dict[int, list[int]]) -> int | None:
    """The rank that wrote ``__1_0.distcp`` or ``pp1/__1_0.distcp``, None for other files."""
    folder, _, file = name.rpartition("/")
    position = layout.parse_shard(file)
    if position is None or not folder:
        return position
    stage = layout.parse_stage(folder)
    ranks = peers.get(stage, []) if stage is not None else []
    return ranks[position] if position < len(ranks) else None
