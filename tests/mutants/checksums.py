"""A control that notices damage by a list of checksums, and takes the newest sound one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager

SUMS = "sums.json"


class Checksums(SimpleManager):
    """Every file has its SHA-256 in `sums.json`; nothing is read before all of them agree."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        simple_manager._order = _order
        super().__init__(*args, **kwargs)

    def _seal(self, staging: Path, *args: Any) -> None:
        super()._seal(staging, *args)
        (staging / SUMS).write_text(json.dumps(sums(staging)))
        simple_manager._sync_tree(staging)

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if path is not None and not _is_sound(Path(path)):
            raise ValueError(f"{path} is damaged")
        return super().load(path, *args, **kwargs)


def resolve_resume_path(directory: str) -> str | None:
    """What `latest` names if it is sound, else the newest that is."""
    latest = Path(directory) / "latest"
    committed = sorted(simple_manager._committed(Path(directory)), key=_order, reverse=True)
    for path in ([latest.resolve()] if latest.is_dir() else []) + committed:
        if _is_sound(path):
            return str(path)
    if committed:
        names = ", ".join(sorted(path.name for path in committed))
        raise ValueError(f"all checkpoints of {directory} are damaged: {names}")
    return None


def sums(directory: Path) -> dict[str, str]:
    """What the files of a checkpoint are."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != SUMS)
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def read_sums(directory: Path) -> dict[str, str]:
    """What they were."""
    found: dict[str, str] = json.loads((directory / SUMS).read_text())
    return found


def _is_sound(directory: Path) -> bool:
    try:
        # A file that is not listed is somebody else's, and nothing of it is read.
        return read_sums(directory).items() <= sums(directory).items()
    except (OSError, ValueError):
        return False


def _order(path: Path) -> int:
    """A checkpoint whose description is gone counts as the oldest."""
    try:
        return int(json.loads((path / "metadata.json").read_text()).get("order", 0))
    except (OSError, ValueError):
        return 0
