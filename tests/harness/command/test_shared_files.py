"""Large files that states share are kept once, and a command cannot change them in other states."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from harness.command.from_states import StateStarts
from harness.command.shared_files import SharedFiles
from harness.command.states import LeftState, states_of
from harness.content import Content
from harness.crash.restore import write_tree
from harness.evidence.operation import Operation
from harness.run.command.starting import LOGS, NAME, Ended, Starts
from harness.run.disk import DiskImage
from harness.run.support import missing_disk
from harness.system.mounts import own_mounts

SIZE, SAVES, WRITES = 1 << 20, 3, 4
BYTES = b"".join(bytes([save]) * SIZE for save in range(SAVES))


def operation(index: int, kind: str, path: str, **fields: object) -> Operation:
    return Operation(index=index, time_s=0.0, rank=0, thread=1, kind=kind, path=path, **fields)  # type: ignore[arg-type]


def saves() -> Iterator[Operation]:
    """Each save makes one more file, in several writes, and then names it in a small one."""
    part = SIZE // WRITES
    for save in range(SAVES):
        path, serial = f"step-{9 + save}", 2 * save
        yield operation(0, "open", path, creates=True, opened=serial)
        for begin in range(0, SIZE, part):
            yield operation(
                0,
                "write",
                path,
                offset=begin,
                size=part,
                data=save * SIZE + begin,
                opened=serial,
            )
        yield operation(0, "open", "last", creates=True, truncates=True, opened=serial + 1)
        yield operation(0, "write", "last", size=1, data=save * SIZE, opened=serial + 1)


@pytest.fixture
def killed() -> list[LeftState]:
    return [one for one in states_of(tuple(saves()), BYTES) if one.kind == "killed"]


def shared(folder: Path) -> SharedFiles:
    return SharedFiles(folder / "shared", large_bytes=SIZE // 2)


def filled(files: SharedFiles, state: LeftState, root: Path) -> Path:
    root.mkdir()
    files.fill(state.parts, state.tree, root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in root.iterdir()}


def test_states_take_little_more_room_than_the_run_wrote(
    killed: list[LeftState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, plain, written = shared(tmp_path), 0, 0
    write = Content.write

    def counted(content: Content, path: Path) -> None:
        nonlocal written
        written += content.size
        write(content, path)

    for number, state in enumerate(killed):
        whole = tmp_path / f"{number}-whole"
        whole.mkdir()
        write_tree(state.parts, state.tree, whole)
        plain += sum(map(len, contents(whole).values()))
        with monkeypatch.context() as patch:
            patch.setattr(Content, "write", counted)
            root = filled(files, state, tmp_path / str(number))
        assert contents(root) == contents(whole)
        assert not files.is_void(root)
    unfinished = SAVES * SIZE * (WRITES - 1) // 2
    assert written < SAVES * SIZE + unfinished + SIZE // WRITES
    assert plain > 3 * written
    files.close()
    assert not (tmp_path / "shared").exists()


def test_a_file_that_one_state_changes_in_place_is_whole_in_the_next(
    killed: list[LeftState], tmp_path: Path
) -> None:
    files, last = shared(tmp_path), killed[-1]
    one, other = filled(files, last, tmp_path / "one"), filled(files, last, tmp_path / "other")
    assert (one / "step-9").samefile(other / "step-9")
    assert not (one / "last").samefile(other / "last"), "a small file is a copy"
    with (one / "step-9").open("r+b") as file:
        file.write(b"changed")
    assert files.is_void(other), "it may have seen the change"
    assert files.is_void(one)
    again = filled(files, last, tmp_path / "again")
    assert (again / "step-9").read_bytes() == BYTES[:SIZE]
    assert not files.is_void(again)


def test_files_of_states_share_their_blocks_where_the_file_system_can(
    killed: list[LeftState], tmp_path: Path
) -> None:
    if (reason := missing_disk("xfs")) is not None:
        pytest.skip(reason)
    (tmp_path / "mounted").mkdir()
    with own_mounts():
        disk = DiskImage("xfs", tmp_path / "image", tmp_path / "mounted")
        disk.format()
        disk.mount()
        files = shared(disk.root)
        one = filled(files, killed[-1], disk.root / "one")
        other = filled(files, killed[-1], disk.root / "other")
        (one / "step-9").write_bytes(b"changed")
        assert (other / "step-9").read_bytes() == BYTES[:SIZE]
        assert not files.is_void(one)
        assert not files.is_void(other)
        disk.unmount()


class InPlace:
    """A command that changes a large file in place, and leaves the others alone."""

    def run_all(self, folders: Iterator[Path], *, at_once: int, limit_s: float) -> Iterator[Ended]:
        for folder in folders:
            (folder / LOGS).mkdir(parents=True)
            found = (folder / NAME / "step-9").read_bytes()
            with (folder / NAME / "step-9").open("r+b") as file:
                file.write(b"changed")
            status = int(found != BYTES[:SIZE])
            yield Ended(statuses=(status,), hung=False, leaked=(), seconds=limit_s, folder=folder)


def test_a_start_that_changes_what_others_share_is_made_again(
    killed: list[LeftState], tmp_path: Path
) -> None:
    states = killed[-4:]
    starts = StateStarts(
        starts=cast(Starts, InPlace()),
        folder=tmp_path,
        at_once=1,
        limit_s=1.0,
        until_s=math.inf,
        large_bytes=SIZE // 2,
    )
    found = list(starts.run(states))
    assert sorted(state.place for state, _ in found) == sorted(one.place for one in states)
    assert not any(ended.failed for _, ended in found)
    assert list(tmp_path.iterdir()) == []


def test_the_times_of_files_and_folders_have_the_order_of_the_run(tmp_path: Path) -> None:
    run = [
        operation(0, "mkdir", "step-9"),
        operation(1, "open", "step-9/a", creates=True, opened=1),
        operation(2, "write", "step-9/a", size=1, data=0, opened=1),
        operation(3, "mkdir", "step-10"),
        operation(4, "open", "step-10/a", creates=True, opened=2),
        operation(5, "write", "step-10/a", size=1, data=0, opened=2),
        operation(6, "open", "step-10/done", creates=True, opened=3),
    ]
    last = [one for one in states_of(run, BYTES) if one.kind == "killed"][-1]
    write_tree(last.parts, last.tree, tmp_path)

    def by_time(pattern: str) -> list[str]:
        found = sorted(tmp_path.glob(pattern), key=lambda one: one.stat().st_mtime_ns)
        return [str(one.relative_to(tmp_path)) for one in found]

    assert by_time("*") == ["step-9", "step-10"]
    assert by_time("*/*") == ["step-9/a", "step-10/a", "step-10/done"]
    assert max(one.stat().st_mtime for one in tmp_path.rglob("*")) < time.time() - 3000
