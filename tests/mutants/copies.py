"""A control that writes plainly, so that it knows which rank failed and why."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.mutants.checksums import Checksums
from tests.mutants.checksums import resolve_resume_path as resolve_resume_path


class Copies(Checksums):
    """Shards are made elsewhere, and copied by ordinary writes once all ranks have theirs."""

    def _write_shards(self, staging: Path) -> None:
        places = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(places, src=0)
        elsewhere = self._place(Path(str(places[0])))
        try:
            writer = FileSystemWriter(elsewhere, sync_files=False)
            dcp_save(self._tensors(), storage_writer=writer, process_group=self._group)
            mine = dist.get_rank(self._group)
            names = [f"__{mine}_0.distcp"] + ([".metadata"] if mine == 0 else [])
            for name in names:
                _copy(elsewhere / name, self._place(staging) / name)
        finally:
            dist.barrier()
            if dist.get_rank() == 0:
                shutil.rmtree(str(places[0]))


def _copy(source: Path, target: Path) -> None:
    with target.open("wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())
