"""Suspends Python's garbage collector while many objects are built, none of which is garbage.

Reading ``.metadata`` or merging plans creates one object per piece and rank, and a load a few per
tensor. Every few thousand objects trigger a collection, and a full collection walks over everything
that torch has imported, which takes about 0.4 s.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["held_back"]


@contextmanager
def held_back() -> Generator[None, None, None]:
    """Suspends the collector in the block, and restores its state afterwards.

    The setting is global: if two threads use this at a time, the first to finish restores it for
    both.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
