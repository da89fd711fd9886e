"""The storage matrix: what the package does on each file system that can be mounted here."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.system.mounts import MountError, take_own_mounts
from tests.storage_mounts.lives import fail, join, live
from tests.storage_mounts.mounts import Image, Kind, Overlay, Own, PassedOn

Life = Callable[..., dict[str, Any]]

_WHOLE = {
    "steps": ["step_3", "step_4"],
    "latest": "step_4",
    "resumes": "step_4",
    "loaded": (4, 40, "yes"),
    "same": True,
    "hidden": [],
}

_KINDS: dict[str, Kind] = {
    "ext4": Image("ext4"),
    "xfs": Image("xfs"),
    "btrfs": Image("btrfs"),
    "overlayfs": Overlay(),
    "bindfs": PassedOn("bindfs"),
    "mergerfs": PassedOn("mergerfs"),
    "fuse": Own({}),
    "stale": Own({"stale_s": 0.5}),
    "late": Own({"late_s": 0.5}),
    "cached": Own({"cache_s": 0.5}),
    "no-exchange": Own({"exchange": False}),
    "no-flock": Own({"flock": "refused"}),
    "no-direct": Own({"direct": "refused"}),
    "kept-direct": Own({"direct": "kept"}),
}


def _run(life: Life, kind: Kind, folder: Path, **options: Any) -> dict[str, Any]:
    """What a life finds out on a mount, in a process and in mounts of its own."""
    if (reason := kind.missing()) is not None:
        pytest.skip(reason)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            found = _in_own_mounts(life, kind, folder, options)
            os.write(writing, pickle.dumps(found))
        except BaseException:  # noqa: BLE001 - a test must not go on in two processes
            os.write(writing, pickle.dumps(traceback.format_exc()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        found = pickle.loads(answer.read())  # noqa: S301 - of this test's own child
    os.waitpid(pid, 0)
    if isinstance(found, MountError):
        pytest.skip(str(found))
    assert not isinstance(found, str), found
    whole: dict[str, Any] = found
    return whole


def _in_own_mounts(
    life: Life, kind: Kind, folder: Path, options: dict[str, Any]
) -> dict[str, Any] | MountError:
    try:
        take_own_mounts()
    except MountError as error:
        return error
    with kind.views(folder) as (one, other):
        return life(one, other, **options)


def _settled(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Without what another host sees, where it may see it late."""
    shown = ("steps", "latest") if name in ("stale", "late", "cached") else ()
    return {key: value for key, value in found.items() if key not in shown}


@pytest.mark.parametrize("name", _KINDS)
def test_a_job_saves_replaces_retires_and_resumes(name: str, tmp_path: Path) -> None:
    found = _run(live, _KINDS[name], tmp_path)
    assert _settled(found, name) == _settled(_WHOLE, name)


def test_a_job_does_so_without_symlinks_where_latest_is_a_file(tmp_path: Path) -> None:
    assert _run(live, Own({"symlinks": False}), tmp_path, latest="file") == _WHOLE


def test_a_directory_without_symlinks_is_refused_before_anything_is_saved(tmp_path: Path) -> None:
    found = _run(fail, Own({"symlinks": False}), tmp_path)
    assert found["steps"] == []
    assert all("symbolic links" in one for one in found["told"]), found


def test_a_save_fails_and_says_so_where_directories_cannot_be_renamed(tmp_path: Path) -> None:
    found = _run(fail, Own({"directory_renames": False}), tmp_path)
    assert found["steps"] == []
    assert ["Invalid cross-device link" in one for one in found["told"]] == [True, True], found


def test_a_save_fails_where_latest_goes_on_naming_the_one_before(tmp_path: Path) -> None:
    found = _run(fail, Own({"follows_links": False}), tmp_path)
    assert found["told"][0] == ""
    assert "latest names step_1" in found["told"][1], found


@pytest.mark.parametrize("name", ["overlayfs", "bindfs", "fuse"])
def test_a_second_job_is_refused_also_on_another_host(name: str, tmp_path: Path) -> None:
    found = _run(join, _KINDS[name], tmp_path)
    assert "is in use by another job" in found["told"], found
    assert found["steps"] == ["step_1", "step_2"]
