"""The garbage collector is suspended, and restored to its former state."""

import gc

import pytest

from kempnerforge.checkpoint.collection import held_back


def _divide_by_zero_without_collection(found: list[bool]) -> None:
    with held_back():
        found.append(gc.isenabled())
        1 / 0  # noqa: B018


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_as_it_was_also_after_an_error(*, was_on: bool) -> None:
    found: list[bool] = []
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ZeroDivisionError):
            _divide_by_zero_without_collection(found)
        assert found == [False]
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()
