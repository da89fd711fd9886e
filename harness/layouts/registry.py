"""The layouts, by the names that plans use."""

from __future__ import annotations

from collections.abc import Callable

from harness.layouts.base import Layout
from harness.layouts.dcp_steps import DcpSteps
from harness.layouts.kempnerforge import KempnerForge

_KEMPNERFORGE = KempnerForge()

DEFAULT = _KEMPNERFORGE.name
"""The layout of an implementation that names no other."""

LAYOUTS: dict[str, Layout] = {one.name: one for one in (_KEMPNERFORGE, DcpSteps())}


def is_owned(name: str) -> bool:
    """Whether a name in a checkpoint directory means something in any layout."""
    return any(layout.owned(name) for layout in LAYOUTS.values())


def renumber(text: str, steps: Callable[[int], int]) -> str:
    """Returns the text with other steps in the names of checkpoints, in any layout."""
    for layout in LAYOUTS.values():
        if layout.step_in(text) is not None:
            return layout.renumber(text, steps)
    return text
