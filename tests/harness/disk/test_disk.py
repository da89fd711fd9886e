"""What each profile keeps and loses, told by all the trees that it can leave."""

from __future__ import annotations

from random import Random
from typing import Any

from benchmarks.crash_states import flatten
from benchmarks.naive_states import Tree
from harness.crash.choose import choose
from harness.disk.disk import Disk
from harness.disk.profiles import BLOCK_BYTES, PROFILES, ProfileName
from harness.disk.state import Parts
from harness.evidence.operation import Operation

BLOCK = b"a" * BLOCK_BYTES


class Steps:
    """Operations told one by one, and what a power cut after them can leave."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.written = bytearray()

    def do(self, kind: str, path: str, target: str | None = None, **more: Any) -> None:
        place = len(self.operations)
        said = {"rank": 0, "thread": 1, "time_s": 0.0, "index": place, **more}
        self.operations.append(Operation(kind=kind, path=path, target=target, **said))

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        place = len(self.written)
        self.written += data
        self.do("write", path, offset=offset, size=len(data), data=place)

    def create(self, path: str, data: bytes = b"", *, sync: bool = False) -> None:
        self.do("open", path, creates=True, truncates=True)
        if data:
            self.write(path, data)
        if sync:
            self.do("fsync", path)

    def trees(self, profile: ProfileName) -> list[Tree]:
        disk = Disk(PROFILES[profile])
        parts = Parts(disk)
        for operation in self.operations:
            disk.apply(0, operation, bytes(self.written))
        choices = choose(disk, PROFILES[profile], None, Random(0), 4096)
        assert choices.complete
        found: list[Tree] = []
        for choice in choices.found:
            tree = flatten(parts, parts.state(choice))
            found += [tree] if tree not in found else []
        return found


def test_a_file_that_is_synced_may_lose_its_name_in_posix_only() -> None:
    steps = Steps()
    steps.create("a", b"x", sync=True)
    assert steps.trees("ordered") == [{"a": b"x"}]
    assert steps.trees("posix") == [{"a": b"x"}, {}]


def test_a_rename_behind_the_sync_of_the_file_is_lost_in_both() -> None:
    steps = Steps()
    steps.create("new", b"x", sync=True)
    steps.do("fsync", ".")
    steps.do("rename", "new", "a")
    for profile in PROFILES:
        assert steps.trees(profile) == [{"a": b"x"}, {"new": b"x"}]  # type: ignore[arg-type]


def test_a_synced_directory_with_unsynced_data_has_an_empty_file() -> None:
    steps = Steps()
    steps.create("a", b"x")
    steps.do("fsync", ".")
    assert steps.trees("ordered") == [{"a": b"x"}, {"a": b""}]
    assert steps.trees("posix") == [{"a": b"x"}, {"a": b""}, {"a": b"\0"}]


def test_appended_data_is_torn_at_blocks_and_has_gaps_in_posix_only() -> None:
    steps = Steps()
    steps.create("a", b"", sync=True)
    steps.do("fsync", ".")
    steps.write("a", BLOCK * 2)
    torn, gap = {"a": BLOCK}, {"a": bytes(BLOCK_BYTES) + BLOCK}
    assert torn in steps.trees("ordered")
    assert gap not in steps.trees("ordered")
    assert torn in steps.trees("posix")
    assert gap in steps.trees("posix")


def test_data_written_over_durable_data_has_no_order_in_both() -> None:
    steps = Steps()
    steps.create("a", BLOCK * 2, sync=True)
    steps.do("fsync", ".")
    steps.write("a", b"b" * 2 * BLOCK_BYTES)
    for profile in ("ordered", "posix"):
        found = steps.trees(profile)
        assert {"a": b"b" * BLOCK_BYTES + BLOCK} in found
        assert {"a": BLOCK + b"b" * BLOCK_BYTES} in found


def test_space_that_was_reserved_is_zero_in_both() -> None:
    steps = Steps()
    steps.create("a", b"", sync=True)
    steps.do("fsync", ".")
    steps.do("truncate", "a", size=4)
    steps.write("a", b"full")
    for profile in PROFILES:
        assert {"a": b"\0\0\0\0"} in steps.trees(profile)  # type: ignore[arg-type]


def test_emptying_a_file_is_in_the_order_of_the_names_where_there_is_one() -> None:
    steps = Steps()
    steps.create("a", b"old", sync=True)
    steps.do("fsync", ".")
    steps.do("open", "a", truncates=True)
    steps.write("a", b"new")
    steps.create("b")
    old_with_b = {"a": b"old", "b": b""}
    assert steps.trees("ordered") == [
        {"a": b"new", "b": b""}, {"a": b"", "b": b""}, {"a": b"new"}, {"a": b""}, {"a": b"old"},
    ]  # fmt: skip
    assert old_with_b in steps.trees("posix")


def test_names_are_kept_in_their_order_by_a_journal_only() -> None:
    steps = Steps()
    steps.create("a")
    steps.create("b")
    a, b, both = {"a": b""}, {"b": b""}, {"a": b"", "b": b""}
    assert steps.trees("ordered") == [both, a, {}]
    assert steps.trees("posix") == [both, a, b, {}]


def test_the_sync_of_another_file_that_grew_settles_a_journal() -> None:
    steps = Steps()
    steps.create("new", b"x")
    steps.do("rename", "new", "a")
    steps.create("other", b"y", sync=True)
    assert steps.trees("ordered") == [{"a": b"x", "other": b"y"}, {"a": b"", "other": b"y"}]
    assert {"other": b"y"} not in steps.trees("ordered")
    assert {} in steps.trees("posix")


def test_a_move_between_directories_is_one_change_that_either_sync_settles() -> None:
    for synced in ("from", "to"):
        steps = Steps()
        for folder in ("from", "to"):
            steps.do("mkdir", folder)
        steps.create("from/a", b"x", sync=True)
        steps.do("fsync", ".")
        steps.do("rename", "from/a", "to/a")
        steps.do("fsync", synced)
        moved = {"from": None, "to": None, "to/a": b"x"}
        assert steps.trees("posix") == [moved]


def test_a_directory_that_moves_on_has_one_name_in_each_state() -> None:
    steps = Steps()
    for folder in ("a", "b", "c"):
        steps.do("mkdir", folder)
    steps.do("sync", ".")
    steps.do("rename", "b", "a/b")
    steps.do("rename", "a/b", "c/b")
    a_and_c = {"a": None, "c": None}
    assert steps.trees("posix") == [
        {**a_and_c, "c/b": None}, {**a_and_c, "a/b": None}, {**a_and_c, "b": None},
    ]  # fmt: skip
    steps.do("rename", "c/b", "a/b")
    steps.do("rename", "c", "a/b/c")  # where b was in c before
    assert {"a": None, "b": None, "b/c": None} in steps.trees("posix")


def test_an_exchange_has_no_middle() -> None:
    steps = Steps()
    steps.create("a", b"1", sync=True)
    steps.create("b", b"2", sync=True)
    steps.do("fsync", ".")
    steps.do("exchange", "a", "b")
    for profile in PROFILES:
        found = steps.trees(profile)  # type: ignore[arg-type]
        assert found == [{"a": b"2", "b": b"1"}, {"a": b"1", "b": b"2"}]


def test_a_sync_of_everything_leaves_one_state() -> None:
    steps = Steps()
    steps.do("mkdir", "d")
    steps.create("d/a", b"x")
    steps.do("symlink", "latest", "d")
    steps.do("link", "d/a", "d/b")
    steps.do("unlink", "d/a")
    steps.do("sync", ".")
    for profile in PROFILES:
        assert steps.trees(profile) == [{"d": None, "d/b": b"x", "latest": "d"}]  # type: ignore[arg-type]


def test_an_operation_that_failed_changes_nothing() -> None:
    steps = Steps()
    steps.create("a", b"x")
    steps.do("fsync", ".", error=5)
    steps.do("fsync", "a", error=5)
    assert {} in steps.trees("ordered")
