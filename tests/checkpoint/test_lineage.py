"""The checkpoints that the newest one descends from."""

from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.checkpoint.format.manifest import Head
from kempnerforge.checkpoint.protocol.lineage import abandoned_branches


def made(number: int, parent: int | None) -> Head:
    return Head(
        format=1,
        save_id=f"{number:016x}",
        step=number,
        sequence=number,
        parent=None if parent is None else f"{parent:016x}",
    )


def aside(*saves: tuple[int, int | None]) -> list[int]:
    return sorted(int(save_id, 16) for save_id in abandoned_branches(made(*one) for one in saves))


def test_nothing_stands_aside_of_a_run_that_only_went_on() -> None:
    assert aside((1, None), (2, 1), (3, 2)) == []
    assert aside() == []


def test_what_was_rolled_back_from_stands_aside() -> None:
    assert aside((1, None), (2, 1), (3, 2), (4, 1), (5, 4)) == [2, 3]


def test_branches_are_left_twice() -> None:
    assert aside((1, None), (2, 1), (3, 1), (4, 3), (5, 3)) == [2, 4]


def test_a_run_that_began_afresh_descends_from_nothing() -> None:
    assert aside((1, None), (2, 1), (3, None), (4, 3)) == [1, 2]


def test_where_the_parent_is_gone_all_that_is_older_counts() -> None:
    assert aside((1, None), (2, 1), (4, 3), (5, 4)) == []


def test_a_parent_that_is_not_older_is_none() -> None:
    assert aside((1, None), (2, 2), (3, 9)) == []


@given(st.lists(st.none() | st.integers(0, 30), max_size=20))
def test_the_newest_never_stands_aside(parents: list[int | None]) -> None:
    found = aside(*enumerate(parents))
    assert not parents or len(parents) - 1 not in found
    assert set(found) <= set(range(len(parents)))
