"""Python's garbage collector, held back while many objects are built of which none is garbage.

Reading ``.metadata`` or merging plans builds one object a piece and rank, a load a few a tensor.
Each few thousand of them set off a collection, and each full one walks over everything that torch
has imported, some 0.4 s.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["held_back"]


@contextmanager
def held_back() -> Generator[None, None, None]:
    """No collection begins within; afterwards it is as it was, off where the program had it off.

    The setting is the process's: where two threads do this, the first to end ends it for both.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
