"""Checkpoints made by the real protocol, without torch's shards: small, and whole."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.manifest import Manifest
from kempnerforge.checkpoint.protocol.catalog import read_catalog
from kempnerforge.checkpoint.protocol.commit import Commit
from kempnerforge.checkpoint.runtime.process import local_runtime
from kempnerforge.checkpoint.runtime.storage import LocalStorage

SHARD = "__0_0.distcp"


def shard_metadata(tensors: Mapping[str, tuple[int, ...]], save_id: str, length: int) -> bytes:
    """What DCP writes beside one shard file of ``length`` bytes."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    metadata = Metadata(
        state_dict_metadata={
            name: TensorStorageMetadata(
                properties=TensorProperties(dtype=torch.bfloat16),
                size=torch.Size(shape),
                chunks=[
                    ChunkStorageMetadata(
                        offsets=torch.Size([0] * len(shape)), sizes=torch.Size(shape)
                    )
                ],
            )
            for name, shape in tensors.items()
        },
        storage_data={
            MetadataIndex(name): _StorageInfo(relative_path=SHARD, offset=0, length=length)
            for name in tensors
        },
        storage_meta=StorageMeta(save_id=save_id),
    )
    return pickle.dumps(metadata)


def save(
    root: Path,
    step: int,
    *,
    content: bytes = b"shard",
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """Commit a checkpoint of ``step``, with files of any name besides."""
    storage = LocalStorage()
    effects = local_runtime(storage)
    save_id = effects.process.new_save_id()
    storage.make_durable_directory(root)
    commit = Commit(runtime=effects, root=root, step=step, save_id=save_id, stages=None)
    commit.open()
    files = {
        name: storage.write(commit.staging / name, data)
        for name, data in {SHARD: content, layout.TRAIN_STATE: b"state", **(extra or {})}.items()
    }
    commit.seal(
        shard_metadata={
            layout.SHARD_METADATA: shard_metadata(
                {"model.w": (2, 3)} if tensors is None else tensors, save_id, len(content)
            )
        },
        metadata={"step": step, "tokens_seen": step * 10, **(metadata or {})},
        written=files,
        sealed=Manifest(
            save_id=save_id,
            step=step,
            tokens_seen=step * 10,
            sequence=read_catalog(root, storage).next_sequence(),
            parent=None,
            world_size=1,
            stages=None,
            layout={"stage_of_rank": [None], "meshes": []},
            files={},
        ),
    )
    replaced = commit.publish()
    if replaced is not None:
        storage.remove_tree(replaced)
    return commit.target


def save_plain(root: Path, step: int) -> Path:
    """A checkpoint as another program writes it."""
    path = root / layout.format_step(step)
    path.mkdir(parents=True)
    (path / SHARD).write_bytes(b"shard")
    (path / layout.TRAIN_STATE).write_bytes(b"state")
    (path / layout.SHARD_METADATA).write_bytes(shard_metadata({"model.w": (2, 3)}, "x", 5))
    (path / layout.METADATA).write_text(json.dumps({"step": step, "tokens_seen": 1}))
    return path


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
