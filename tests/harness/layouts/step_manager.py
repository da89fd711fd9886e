"""A manager over torch's DCP that writes `step-N` folders in place: slow, plain and correct.

All ranks write their shards into the folder, their own state as one more tensor of bytes. Once all
are there, rank 0 makes their names durable, and only then writes `.metadata`, which makes the
folder a checkpoint. A deletion begins with `.metadata`. A load takes the highest step that has one;
what has none is removed by the next start.

Out of scope: pipeline stages, another world on resume, and a step that is there already: it is not
saved again.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import WriteResult

from tests.harness.simple_manager import (
    ShutdownHandler as ShutdownHandler,
)
from tests.harness.simple_manager import (
    SimpleManager,
    _agree,
    _rank_state,
    _sync,
)

METADATA = ".metadata"


class Writer(FileSystemWriter):
    """Makes the shards' names durable before `.metadata` names them, and its own after that."""

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Runs on rank 0 when all ranks have written."""
        folder = Path(self.path)
        _sync(folder)
        super().finish(metadata, results)
        _sync(folder)
        _sync(folder.parent)


class StepManager(SimpleManager):
    """Saves and loads; the parameters and methods are those of the documented manager."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if dist.get_rank() == 0:
            for folder in _folders(self._dir):
                if not (folder / METADATA).exists():
                    shutil.rmtree(folder)
        dist.barrier()

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any = None,
        dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Saves in place; the folder is a checkpoint from the last rename on."""
        folder = self._dir / f"step-{step}"
        if (folder / METADATA).exists():
            return
        shared = self._shared_state(step, tokens_seen, scheduler, extra or {})
        state = shared | _rank_state(dataloader)
        _agree(folder.mkdir, only_first=True)
        self._begin(folder)
        tensors = {**self._tensors(), _own_key(): _as_bytes(state)}
        _agree(lambda: self._write(folder, tensors))
        _agree(lambda: self._prune_steps(folder), only_first=True)

    def _begin(self, folder: Path) -> None:
        """Nothing has to be there before the shards."""

    def _write(self, folder: Path, tensors: dict[str, Any]) -> None:
        dcp_save(tensors, storage_writer=Writer(folder), process_group=self._group)

    def peek_saved_step(self, path: str | None = None) -> int | None:
        """The step of a checkpoint, which its name says."""
        found = path or resolve_resume_path(str(self._dir))
        return None if found is None else _step_of(Path(found))

    def _newest(self) -> Path | None:
        found = resolve_resume_path(str(self._dir))
        return None if found is None else Path(found)

    def _read_states(self, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """One and the same: each rank keeps all of it."""
        state = self._read_own(source)
        return state, state

    def _read_own(self, source: Path) -> dict[str, Any]:
        reader = FileSystemReader(source)
        described = reader.read_metadata().state_dict_metadata[_own_key()]
        assert isinstance(described, TensorStorageMetadata)
        own = {_own_key(): torch.empty(described.size, dtype=torch.uint8)}
        dcp_load(own, storage_reader=reader, process_group=self._group)
        data = io.BytesIO(own[_own_key()].numpy().tobytes())
        state: dict[str, Any] = torch.load(data, weights_only=True)
        return state

    def _prune_steps(self, newest: Path) -> None:
        keep = self._config.keep_last_n
        milestone = self._config.is_dynamic_milestone
        counted = sorted(
            (one for one in _folders(self._dir) if not milestone(_step_of(one))), key=_step_of
        )
        for folder in counted[:-keep] if keep > 0 else ():
            if folder != newest:
                (folder / METADATA).unlink()
                _sync(folder)
                shutil.rmtree(folder)
        _sync(self._dir)


def resolve_resume_path(directory: str) -> str | None:
    """The checkpoint of the highest step."""
    whole = [one for one in _folders(Path(directory)) if (one / METADATA).exists()]
    return str(max(whole, key=_step_of)) if whole else None


def _folders(directory: Path) -> Iterator[Path]:
    for path in list(directory.iterdir()) if directory.is_dir() else ():
        if path.name.startswith("step-") and path.name.removeprefix("step-").isdecimal():
            yield path


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _own_key() -> str:
    return f"rank{dist.get_rank()}"


def _as_bytes(state: dict[str, Any]) -> torch.Tensor:
    data = io.BytesIO()
    torch.save(state, data)
    return torch.frombuffer(bytearray(data.getvalue()), dtype=torch.uint8)
