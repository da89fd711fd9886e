"""Draws that serve a seed and Hypothesis alike.

Everything is drawn from a `random.Random`. With a seed of our own it is the same everywhere; what
Hypothesis draws depends on its version and on the loaded modules. Under
`st.randoms(use_true_random=False)` Hypothesis answers, and then a smaller answer must be a simpler
scenario: the simplest choice comes first, and rare events are drawn by a large number.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def often(random: Random, percent: int) -> bool:
    """Returns True in so many cases of a hundred."""
    return random.randrange(100) >= 100 - percent


def pick(random: Random, choices: Sequence[T]) -> T:
    """Returns one of the choices; an entry that is listed twice is twice as likely."""
    return choices[random.randrange(len(choices))]
