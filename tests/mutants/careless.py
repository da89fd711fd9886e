"""Managers that look at a checkpoint before they load it, and not closely enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.mutants import checksums
from tests.mutants.checksums import SUMS, Checksums
from tests.mutants.checksums import ShutdownHandler as ShutdownHandler
from tests.mutants.checksums import resolve_resume_path as resolve_resume_path


def _listed(directory: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / SUMS).read_text())
    except (OSError, ValueError):
        return {}
    return found


class ComparesSizes(Checksums):
    """Files of the right size are taken for the right files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        checksums.sums = lambda directory: {
            path.relative_to(directory).as_posix(): str(path.stat().st_size)
            for path in directory.rglob("*")
            if path.is_file() and path.name != SUMS
        }
        super().__init__(*args, **kwargs)


class ComparesNames(Checksums):
    """A file that is there is taken for whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        checksums._is_sound = _has_all_names
        super().__init__(*args, **kwargs)


def _has_all_names(directory: Path) -> bool:
    listed = _listed(directory)
    return bool(listed) and all((directory / name).exists() for name in listed)


class TrustsTheList(Checksums):
    """A checkpoint whose list of files is there is taken for whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        checksums._is_sound = lambda directory: bool(_listed(directory))
        super().__init__(*args, **kwargs)


class TrustsTheDescription(Checksums):
    """The description has no checksum, so that tools may add to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        every = checksums.sums
        checksums.sums = lambda directory: {
            name: value for name, value in every(directory).items() if name != "metadata.json"
        }
        super().__init__(*args, **kwargs)
