"""Compares whole tensors that the ranks hold in pieces, however they are split.

Ranks that hold the same piece must hold the same values: replicas, and tensor-parallel peers for
whatever is not split among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from harness.evidence.record import StateDigest

_MODULUS = 1 << 64

Whole = dict[str, tuple[int, int]]
"""The digest of each whole tensor, and how many of its elements were seen."""


def join(states: Iterable[StateDigest]) -> tuple[Whole, list[str]]:
    """Returns the tensors that all ranks hold together, and where two hold a piece differently."""
    pieces: dict[str, dict[str, str]] = {}
    differing: dict[str, None] = {}
    for state in states:
        for name, piece in state.pieces.items():
            place, _, digest = piece.partition(" ")
            if pieces.setdefault(name, {}).setdefault(place, digest) != digest:
                differing[name] = None
    whole = {name: _add_up(places) for name, places in pieces.items()}
    return whole, [f"two ranks hold {name} differently" for name in differing]


def _add_up(places: dict[str, str]) -> tuple[int, int]:
    total = sum(int(digest, 16) for digest in places.values()) % _MODULUS
    elements = sum(
        math.prod(int(size) for size in place.partition("+")[2].split(",") if size)
        for place in places
    )
    return total, elements


def piece_differences(found: Iterable[StateDigest], wanted: Iterable[StateDigest]) -> list[str]:
    """Describes differences between the ranks' state and that of the earlier run."""
    here, problems = join(found)
    there, _ = join(wanted)
    if not here or not there:
        return [*problems, "no rank recorded the pieces that it holds"]
    missing = sorted(there.keys() - here.keys())
    strange = sorted(here.keys() - there.keys())
    other = sorted(name for name in here.keys() & there.keys() if here[name] != there[name])
    groups = (("is missing", missing), ("was not there", strange), ("differs", other))
    return [
        *problems,
        *(f"{names[0]} {verb}{_and_more(names)}" for verb, names in groups if names),
    ]


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
