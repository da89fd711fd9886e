"""Digests of pieces add up to that of the whole, for the same values at the same places alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.evidence.record import StateDigest
from harness.jobs.training.pieces import digest_part, digest_piece
from harness.judge.pieces import join

WHOLE = torch.arange(35.0).reshape(7, 5)


def joined(*described: str) -> tuple[tuple[int, int], list[str]]:
    """The digest of the whole that these pieces make, and what differs among them."""
    states = [StateDigest(params={}, moments={}, rng={}, pieces={"w": one}) for one in described]
    whole, differing = join(states)
    return whole["w"], differing


def rows(whole: Tensor, begin: int, end: int) -> str:
    return digest_part(whole[begin:end], offset=(begin, 0), shape=tuple(whole.shape))


def columns(whole: Tensor, begin: int, end: int) -> str:
    return digest_part(whole[:, begin:end], offset=(0, begin), shape=tuple(whole.shape))


@given(st.integers(0, 7), st.integers(0, 5))
def test_a_whole_has_one_digest_however_it_is_cut(row: int, column: int) -> None:
    uncut = joined(digest_piece(WHOLE))
    assert joined(rows(WHOLE, 0, row), rows(WHOLE, row, 7)) == uncut
    assert joined(columns(WHOLE, 0, column), columns(WHOLE, column, 5)) == uncut
    assert uncut[0][1] == 35


def test_values_that_change_places_are_noticed() -> None:
    swapped = WHOLE.clone()
    swapped[0, 0], swapped[6, 4] = WHOLE[6, 4], WHOLE[0, 0]
    halves = (rows(swapped, 0, 3), rows(swapped, 3, 7))
    assert joined(*halves)[0] != joined(digest_piece(WHOLE))[0]


def test_a_shard_that_stands_where_another_belongs_is_noticed() -> None:
    first = digest_part(WHOLE[:3], offset=(0, 0), shape=(7, 5))
    again = digest_part(WHOLE[:4], offset=(3, 0), shape=(7, 5))
    assert joined(first, again)[0] != joined(digest_piece(WHOLE))[0]


def test_copies_of_a_piece_count_once_and_have_to_be_equal() -> None:
    half, other = rows(WHOLE, 0, 3), rows(WHOLE, 3, 7)
    assert joined(half, other, half, other) == joined(digest_piece(WHOLE))
    assert joined(half, other, rows(WHOLE + 1, 0, 3))[1] == ["two ranks hold w differently"]


def test_a_missing_piece_is_noticed_by_the_number_of_elements() -> None:
    assert joined(rows(WHOLE, 0, 3))[0][1] == 15


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_each_type_of_values_has_its_bits_told(kind: torch.dtype) -> None:
    values = torch.ones(4).to(kind)
    other = values.clone()
    other[2] = 2
    assert digest_piece(values) == digest_piece(values.clone())
    assert digest_piece(values) != digest_piece(other)


def test_a_single_number_is_a_piece_of_one_element() -> None:
    assert joined(digest_piece(torch.tensor(3.0)))[0][1] == 1


def test_minus_zero_is_not_zero() -> None:
    assert digest_piece(torch.tensor([0.0])) != digest_piece(torch.tensor([-0.0]))
