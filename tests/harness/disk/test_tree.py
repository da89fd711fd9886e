"""The replayed tree: what is there now, and what a power cut leaves of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES
from harness.disk.view import View
from harness.evidence.write import write_listing
from tests.harness.judge.cases import Case, RunCase


def _replay(run: RunCase) -> Disk:
    disk = Disk(PROFILES["posix"])
    for operation in run.operations:
        disk.apply(0, operation, bytes(run.written))
    return disk


def _bytes(disk: Disk, path: str, which: str = "live") -> bytes | None:
    view = View(disk, which)  # type: ignore[arg-type]
    return view.content(path).read() if view.kind(path) == "file" else None


def test_a_file_that_was_renamed_is_still_written_through_its_descriptor() -> None:
    run = RunCase()
    run.put("a.tmp", b"first", sync=False)
    run.do("rename", "a.tmp", "a")
    run.written += b"!"
    run.do("write", "a.tmp", offset=5, size=1, data=5)
    assert _bytes(_replay(run), "a") == b"first!"


def test_what_was_not_synced_is_lost_in_a_power_cut() -> None:
    run = RunCase()
    run.put("a", b"old")
    run.do("fsync", ".")
    run.put("a", b"new", sync=False)
    run.put("b", b"synced, but its name is not")
    replayed = _replay(run)
    assert _bytes(replayed, "a") == b"new"
    assert _bytes(replayed, "a", "durable") == b"old"
    assert _bytes(replayed, "b", "durable") is None
    assert _bytes(replayed, "b", "journaled") == b"synced, but its name is not"


def test_a_rename_into_another_directory_lasts_when_the_target_is_synced() -> None:
    run = RunCase()
    run.do("mkdir", "d")
    run.put("a", b"bytes")
    run.do("fsync", ".")
    run.do("rename", "a", "d/a")
    assert _bytes(_replay(run), "a", "durable") == b"bytes"
    run.do("fsync", "d")
    replayed = _replay(run)
    assert _bytes(replayed, "a", "durable") is None
    assert _bytes(replayed, "d/a", "durable") == b"bytes"


def test_operations_that_failed_change_nothing() -> None:
    run = RunCase()
    run.do("mkdir", "d", error=17)
    run.do("unlink", "nothing")
    assert _replay(run).files.snapshot() == {}


def test_holes_truncation_and_hard_links_are_kept() -> None:
    run = RunCase()
    run.do("open", "a", creates=True)
    run.written += b"xy"
    run.do("write", "a", offset=2, size=2, data=0)
    run.do("link", "a", "b")
    run.do("truncate", "a", size=3)
    assert _bytes(_replay(run), "b") == b"\0\0x"


def test_a_write_through_latest_goes_to_the_checkpoint() -> None:
    run = RunCase()
    run.do("mkdir", "step_2")
    run.do("symlink", "latest", "step_2")
    run.put("latest/a", b"bytes")
    assert _bytes(_replay(run), "step_2/a") == b"bytes"


def test_an_exchange_swaps_two_names_at_once() -> None:
    run = RunCase()
    for name in ("one", "two"):
        run.do("mkdir", name)
        run.put(f"{name}/name", name.encode())
    run.do("exchange", "one", "two")
    replayed = _replay(run)
    assert (_bytes(replayed, "one/name"), _bytes(replayed, "two/name")) == (b"two", b"one")


def test_the_snapshot_says_what_a_listing_of_the_disk_says(tmp_path: Path) -> None:
    run = RunCase()
    run.save(2)
    replayed = _replay(run)
    disk = tmp_path / "checkpoints"
    disk.mkdir()
    for path, entry in replayed.files.snapshot().items():
        if entry.kind == "directory":
            (disk / path).mkdir()
        elif entry.kind == "symlink":
            (disk / path).symlink_to(entry.detail)
        else:
            (disk / path).write_bytes(_bytes(replayed, path) or b"")
    write_listing(tmp_path, disk)
    found = json.loads((tmp_path / "after.json").read_text(encoding="utf-8"))
    assert found == {
        path: {"kind": entry.kind, "detail": entry.detail}
        for path, entry in replayed.files.snapshot().items()
    }


def test_two_thousand_operations_are_looked_at_without_delay() -> None:
    run = RunCase()
    for step in range(2, 82, 2):
        run.save(step, prune=step - 4 if step > 4 else None)
        for _ in range(20):
            run.put(f"step_{step}/.log", b"a line")
    assert len(run.operations) > 4000
    case = Case(runs=[run])
    evidence = case.evidence()
    started = time.process_time()
    case.history()
    spent = time.process_time() - started
    # Measured 0.15 s on an idle core; a quadratic replay would take many seconds.
    assert spent < 5.0
    assert evidence.runs[0].after["latest"].detail == "step_80"
