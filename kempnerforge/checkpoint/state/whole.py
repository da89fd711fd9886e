"""A value of a state dict that is kept in one piece."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Whole"]


@dataclass(frozen=True, slots=True)
class Whole:
    """Keeps a container or a rare tensor in one piece; reading replaces its value."""

    value: Any
