"""What a manager does when a read fails, in a process of its own: the checks of `misreading`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.protocol.catalog import read_catalog
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint import training
from tests.checkpoint.failing_reads import Failing, failing_at, failing_paths
from tests.checkpoint.newer import make_newer


def run(rank: int, directory: Path, manager: str, check: str) -> Any:
    """The result of one check of one manager, given as ``module:name``."""
    module, _, name = manager.partition(":")
    setattr(training, "CheckpointManager", getattr(import_module(module), name))  # noqa: B010
    found: Callable[[Path], Any] = globals()[check]
    return found(directory)


def _job(directory: Path, **options: Any) -> training.Job:
    return training.Job(directory, 0, seed=1, **options)


def _three(directory: Path) -> Path:
    job = _job(directory)
    for step in (1, 2, 3):
        job.save(step)
    return directory / "checkpoints"


def _outcome(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except Exception as error:  # noqa: BLE001  # is the outcome
        return type(error).__name__


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("step_*"))


def shard_fails_once(directory: Path) -> Any:
    root = _three(directory)
    job = _job(directory)
    with failing_at("contents", root, errno.ENOMEM, times=1):
        return _outcome(lambda: job.load()[0])


def shard_keeps_failing(directory: Path) -> Any:
    root = _three(directory)
    job = _job(directory, commit_timeout_s=2.0)  # the last attempts would come too late
    with failing_at("contents", root, errno.ENOTCONN):
        return _outcome(lambda: job.load()[0])


def newer_format(directory: Path) -> Any:
    root = _three(directory)
    make_newer(root / "step_3")
    job = _job(directory, keep_last_n=1)
    loaded = _outcome(lambda: job.load()[0])
    again = _outcome(lambda: job.save(3))
    return [loaded, again, "step_3" in _names(root)]


def old_manifest_keeps_failing(directory: Path) -> Any:
    """Of the one that the newest descends from: without it no abandoned branch is known."""
    root = _three(directory)
    job = _job(directory, keep_last_n=1, commit_timeout_s=10.0)
    with failing_at("manifest", root, errno.EIO):
        job.save(4)
        return _names(root)


def number_beside_the_unread(directory: Path) -> Any:
    root = _three(directory)
    (root / "beside").mkdir()  # so that no note says which number was the last
    job = _job(directory, commit_timeout_s=10.0)
    with failing_at("manifest", root, errno.EIO):
        job.save(4)
    entries = read_catalog(root, LocalStorage()).entries
    newest = max(entries, key=lambda entry: entry.sequence)
    return [newest.path.name, len({entry.sequence for entry in entries})]


def replaced_version_keeps_failing(directory: Path) -> Any:
    root = _three(directory)
    before = (root / "step_3" / "manifest.json").read_bytes()
    job = _job(directory, commit_timeout_s=10.0)
    with failing_at("manifest", root, errno.EIO):
        outcome = _outcome(lambda: job.save(3))
    return [outcome, (root / "step_3" / "manifest.json").read_bytes() == before]


def latest_cannot_be_looked_at(directory: Path) -> Any:
    """It names an older one, because somebody pointed it there."""
    root = _three(directory)
    (root / "latest").unlink()
    (root / "latest").symlink_to("step_2")
    job = _job(directory, commit_timeout_s=2.0)
    with failing_at("link", root, errno.EACCES):
        return _outcome(lambda: job.load()[0])


def move_that_cannot_be_seen(directory: Path) -> Any:
    """Without exchange: the sync after the first rename fails, and so do looks at the directory."""
    root = _three(directory)
    LocalStorage.exchange = lambda *_: False  # type: ignore[method-assign]
    genuine, blind = LocalStorage.sync_directory, [False]

    def sync_directory(self: LocalStorage, path: Path) -> None:
        if path == root and not (root / "step_3").exists() and not blind[0]:
            blind[0] = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        genuine(self, path)

    LocalStorage.sync_directory = sync_directory  # type: ignore[method-assign]
    job = _job(directory, commit_timeout_s=10.0)
    hidden = Failing(errno.EIO, float("inf"), lambda path: blind[0] and path == str(root))
    with failing_paths(hidden, listing=True):
        _outcome(lambda: job.save(3))
    leads_to = os.path.realpath(root / "latest")
    return [os.path.exists(os.path.join(leads_to, "manifest.json")), _job(directory).load()[0]]
