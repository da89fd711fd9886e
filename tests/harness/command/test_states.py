"""The states of a run: every instant once, half-written writes, and what a power cut leaves."""

from __future__ import annotations

from cProfile import Profile
from pathlib import Path
from random import Random

import pytest

from harness.command.states import LeftState, in_order_of_interest, states_of
from harness.crash.restore import write_tree
from harness.evidence.operation import Operation

WRITTEN = b"firstsecond"


def operation(index: int, kind: str, path: str, **fields: object) -> Operation:
    return Operation(index=index, time_s=0.0, rank=0, thread=1, kind=kind, path=path, **fields)  # type: ignore[arg-type]


RUN = (
    operation(0, "open", "a", creates=True, truncates=True, opened=1),
    operation(1, "write", "a", offset=0, size=5, data=0, opened=1),
    operation(2, "open", "a", truncates=True, opened=2),
    operation(3, "write", "a", offset=0, size=6, data=5, opened=2),
    operation(4, "rename", "a", target="b"),
)


def contents(state: LeftState, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    write_tree(state.parts, state.tree, folder)
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_each_state_is_there_once(tmp_path: Path) -> None:
    found = [one for one in states_of(RUN, WRITTEN) if one.kind != "power"]
    assert [
        (one.kind, one.place, contents(one, tmp_path / str(number)))
        for number, one in enumerate(found)
    ] == [
        ("killed", 0, {}),
        # After the third operation the file is empty again, as after the first.
        ("killed", 1, {"a": b""}),
        ("killed", 2, {"a": b"first"}),
        ("killed", 4, {"a": b"second"}),
        ("killed", 5, {"b": b"second"}),
        ("torn", 2, {"a": b"fi"}),
        ("torn", 4, {"a": b"sec"}),
    ]


def test_a_power_cut_leaves_what_no_kill_leaves(tmp_path: Path) -> None:
    power = [one for one in states_of(RUN, WRITTEN) if one.kind == "power"]
    left = [contents(one, tmp_path / str(number)) for number, one in enumerate(power)]
    assert {"b": b""} in left, "the rename reached the disk, and the data did not"


def test_any_beginning_covers_the_whole_run() -> None:
    found = states_of(RUN, WRITTEN)
    ordered = in_order_of_interest(found)
    assert sorted(map(id, ordered)) == sorted(map(id, found))
    assert {one.kind for one in ordered[:4]} == {"killed", "torn", "power"}


def test_a_state_says_what_was_last() -> None:
    texts = [one.describe() for one in states_of(RUN, WRITTEN)[:5]]
    assert texts[0] == "before the first operation"
    assert texts[4] == "killed after operation 5, rename a -> b"


def saves(how: str, writes: int, size: int) -> list[Operation]:
    """Two saves of so many writes each: over the old file, to another one, or by a rename."""
    made: list[Operation] = []

    def make(kind: str, path: str, **fields: object) -> None:
        made.append(operation(len(made), kind, path, **fields))

    for save in range(2):
        path = f"save-{save}" if how == "another" else "new"
        make("open", path, creates=True, truncates=True, opened=save)
        for number in range(writes):
            make(
                "write",
                path,
                offset=number * size,
                size=size,
                data=(save * writes + number) * size,
                opened=save,
            )
        if how == "rename":
            make("rename", path, target="old")
    return made


class Numbers:
    """As many bytes as are asked for, no two places alike."""

    def __getitem__(self, part: slice) -> bytes:
        return Random(part.start).randbytes(part.stop - part.start)


@pytest.mark.parametrize("how", ["over", "another", "rename"])
def test_the_states_of_four_times_as_many_writes_are_four_times_the_work(how: str) -> None:
    def calls(writes: int) -> int:
        operations = saves(how, writes, 800)
        with Profile() as profile:
            states_of(operations, Numbers())
        return sum(one.callcount for one in profile.getstats())

    assert calls(160) / calls(40) < 4.6
