"""State that a training loop keeps beside the model, and saves as extra values.

A loss scale that grows after some steps, as in mixed precision, and a moving average with a
warm-up, like that of the weights. Training reads neither, so each has exactly what a checkpointer
can lose: a value, and the counter on which the next value depends. A loop that is not given one
back begins with a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_GROWTH_INTERVAL = 3
_MOST_DECAY = 0.9
_WARMUP = 10


@dataclass(slots=True, kw_only=True)
class LossScale:
    """Doubles after some steps in a row. It changes with every step."""

    scale: float = 65536.0
    growth_tracker: int = 0

    def step(self) -> None:
        """Count one step without an overflow."""
        self.growth_tracker += 1
        if self.growth_tracker == _GROWTH_INTERVAL:
            self.scale, self.growth_tracker = 2 * self.scale, 0


@dataclass(slots=True, kw_only=True)
class MovingAverage:
    """Follows a value, at first faster than later. It changes with every step."""

    value: float = 0.0
    updates: int = 0

    def follow(self, value: float) -> None:
        """Update it once."""
        decay = min(_MOST_DECAY, (1 + self.updates) / (_WARMUP + self.updates))
        self.value += (1 - decay) * (value - self.value)
        self.updates += 1


@dataclass(slots=True, kw_only=True)
class Companions:
    """Both of them."""

    scaler: LossScale = field(default_factory=LossScale)
    average: MovingAverage = field(default_factory=MovingAverage)
    _shared: dict[str, dict[str, float | int]] = field(default_factory=dict, repr=False)
    """The values that saves get, which change after them."""

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any]) -> Companions:
        """Returns the companions that a load brought back."""
        return cls(
            scaler=LossScale(**extra.get("scaler", {})),
            average=MovingAverage(**extra.get("average", {})),
        )

    def step(self, lr: float) -> None:
        """Update both after a training step."""
        self.scaler.step()
        self.average.follow(lr)
        self.extra()

    def extra(self) -> dict[str, dict[str, float | int]]:
        """Returns the extra values for a save: the same dictionaries each time, updated by steps.

        So a checkpointer that keeps them until it writes saves those of a later step.
        """
        now = {"scaler": asdict(self.scaler), "average": asdict(self.average)}
        for name, values in now.items():
            self._shared.setdefault(name, {}).update(values)
        return self._shared

    def describe(self) -> dict[str, str]:
        """Returns each value by name, as text that is equal only if the values are."""
        return {
            f"{name}.{key}": float(value).hex()
            for name, values in self.extra().items()
            for key, value in values.items()
        }
