"""How draws are made, so that one function serves a seed and Hypothesis alike.

Everything drawn comes from a `random.Random`. With a seed of our own it is the same everywhere;
what Hypothesis draws depends on its version and on the modules that are loaded. Under
`st.randoms(use_true_random=False)` it is Hypothesis that answers, and then a smaller answer has to
be a simpler scenario: the simplest choice comes first, and what is rare is drawn by a large number.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def often(random: Random, percent: int) -> bool:
    """True in so many cases of a hundred."""
    return random.randrange(100) >= 100 - percent


def pick(random: Random, choices: Sequence[T]) -> T:
    """One of the choices; what stands there twice is twice as likely."""
    return choices[random.randrange(len(choices))]
