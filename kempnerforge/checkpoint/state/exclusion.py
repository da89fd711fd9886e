"""Parts of the state that a load leaves alone."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Exclusion"]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """State keys to leave alone: a key covers itself and everything below it."""

    keys: tuple[str, ...] = ()

    def covers(self, key: str) -> bool:
        """Whether ``key``, such as ``optimizer.state``, is excluded."""
        return any(key == excluded or key.startswith(f"{excluded}.") for excluded in self.keys)

    def without_effect(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Returns the excluded keys that cover none of ``keys``."""
        present = tuple(keys)
        return tuple(
            excluded
            for excluded in self.keys
            if not any(Exclusion((excluded,)).covers(key) for key in present)
        )
