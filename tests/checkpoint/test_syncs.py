"""What a save syncs, and how often: docs/storage.md gives the reason for each sync."""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.checkpoint.test_identity import manager


def test_a_save_syncs_each_file_and_folder_once_and_the_directory_after_each_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "c"
    given = manager(root, keep_last_n=2)
    for step in (1, 2):
        given.save(step)
    synced: list[str] = []
    genuine = os.fsync

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        parts = [part for part in path.relative_to(root).parts if "step_" not in part]
        name = "/".join(parts)
        if path.is_dir():
            name = f"{name or ('staging' if path != root else 'root')}/"
        synced.append(name)
        genuine(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    given.save(3)
    assert Counter(synced) == {
        "__0_0.distcp": 1,
        "ranks/rank_00000.pt": 1,
        "train_state.pt": 1,
        ".metadata": 1,
        "metadata.json": 1,
        "manifest.json": 1,
        "staging/": 1,
        "ranks/": 1,
        "root/": 4,
    }
    assert synced[0] == "root/"
    assert set(synced[-5:-3]) == {"staging/", "ranks/"}
    assert synced[-3:] == ["root/"] * 3
