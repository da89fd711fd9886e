"""Names on disk are formatted and parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind

numbers = st.integers(min_value=0, max_value=10**12)
leftovers = st.builds(
    Leftover,
    kind=st.sampled_from(LeftoverKind),
    step=numbers,
    save_id=st.text("0123456789abcdef", min_size=16, max_size=16),
)


@given(numbers)
def test_a_step_is_parsed_as_it_was_formatted(step: int) -> None:
    assert layout.parse_step(layout.format_step(step)) == step


@given(numbers)
def test_stages_and_rank_files_are_parsed_as_they_were_formatted(number: int) -> None:
    assert layout.parse_stage(layout.format_stage(number)) == number
    assert layout.parse_rank_file(layout.format_rank_file(number)) == number


@given(leftovers)
def test_a_leftover_is_parsed_as_it_was_formatted_and_is_no_checkpoint(leftover: Leftover) -> None:
    name = layout.format_leftover(leftover)
    assert layout.parse_leftover(name) == leftover
    assert layout.parse_step(name) is None
    assert "step_" not in name[:6]


@given(st.text())
def test_any_name_that_parses_is_exactly_what_would_be_written(name: str) -> None:
    step = layout.parse_step(name)
    assert step is None or layout.format_step(step) == name
    leftover = layout.parse_leftover(name)
    assert leftover is None or layout.format_leftover(leftover) == name


@pytest.mark.parametrize(
    "name",
    ["old-step_9", "step_9_old", "step_-1", "step_09", "step_9\n", "Step_9", "step_", "step_٣", ""],
)
def test_foreign_names_are_not_steps(name: str) -> None:
    assert layout.parse_step(name) is None


@pytest.mark.parametrize("name", ["rank_00001.pt", "ranks/rank_1.pt", "ranks/rank_000001.pt"])
def test_foreign_names_are_not_rank_files(name: str) -> None:
    assert layout.parse_rank_file(name) is None


def test_a_negative_step_has_no_name() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        layout.format_step(-1)
