"""Keeps the saved position of a dataloader until it is created, and reports unmatched state."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.rank_state import hand_over
from kempnerforge.checkpoint.state.rng import set_rng_state

__all__ = ["Handover", "Unmatched", "warn_of_missing", "warn_of_stateless"]

logger = logging.getLogger(__name__)

_WITHOUT = {
    "scheduler": "the schedule starts over: advance it to the saved step yourself",
    "dataloader": "the data is read from the start",
}
_LEFT = {
    "scheduler": "the schedule of this run starts over, unless scheduler= is passed",
    "dataloader": "the loader has no load_state_dict to take its position, so the data is read "
    "from the start; wrap it in ResumableDataLoader in both runs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """State of scheduler and dataloader that only the checkpoint or only the program has."""

    not_saved: tuple[str, ...]
    """Objects passed to the load without state in the checkpoint."""
    not_restored: tuple[str, ...]
    """State in the checkpoint that was not restored, except a position that is still pending."""

    @staticmethod
    def of(
        state: Mapping[str, Any], given: Mapping[str, Any], exclude: Exclusion, *, pending: bool
    ) -> "Unmatched":
        """Compares a train state with the objects that were passed to a load.

        Args:
            state: The train state of this rank.
            given: The objects passed to the load, by argument name; None if not passed.
            exclude: Keys that the load leaves alone on purpose.
            pending: Whether no dataloader has taken the position yet.
        """
        wanted = [name for name in given if not exclude.covers(name)]
        taken = {
            "scheduler": given["scheduler"] is not None,
            # If no loader was passed, one can still be passed later.
            "dataloader": given["dataloader"] is None or not pending,
        }
        return Unmatched(
            not_saved=tuple(n for n in wanted if given[n] is not None and n not in state),
            not_restored=tuple(n for n in wanted if n in state and not taken[n]),
        )

    def say(self, path: object) -> None:
        """Logs a warning for each."""
        for name in self.not_saved:
            warn_of_missing(name, path)
        for name in self.not_restored:
            logger.warning("the %s state of %s is not restored; %s", name, path, _LEFT[name])


def warn_of_missing(name: str, path: object) -> None:
    """Logs that the checkpoint at ``path`` has no state for the argument ``name``."""
    logger.warning("%s has no state of the %s; %s", path, name, _WITHOUT[name])


class Handover:
    """Holds the position of a dataloader, with the matching generators, until a loader takes it.

    Building a loader and restoring its position can draw random numbers, so the generators are set
    again afterwards.

    Args:
        state: The train state of this rank that was loaded.
        asked: Whether a loader can still be passed later, after a load without one.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, *, asked: bool = False) -> None:
        self._position = None if state is None else state.get("dataloader")
        self._generators: Mapping[str, Any] | None = None
        self._missing = asked and self._position is None
        self._warned = False

    @property
    def pending(self) -> bool:
        """Whether a position waits for a loader."""
        return self._position is not None

    def keep_generators(self, generators: Mapping[str, Any]) -> None:
        """Remembers generators to set again after a loader has taken the position."""
        self._generators = generators

    def give(self, dataloader: Any) -> None:
        """Passes the position to the loader, once. If the loader raises, the position is kept."""
        if self._position is not None and hand_over(self._position, dataloader):
            self._position = None
        if self._generators is not None:
            set_rng_state(self._generators)
            if self._position is None:
                self._generators = None

    def found_missing(self) -> bool:
        """Whether a loader asked and there was no position for it; True only the first time."""
        missing, self._missing = self._missing, False
        return missing

    def training_goes_on(self) -> bool:
        """Drops the generators, because training has begun to use its own.

        Returns whether a position is pending, and logs a warning, the first time.
        """
        self._generators, self._missing = None, False
        if not self.pending or self._warned:
            return False
        self._warned = True
        logger.warning(
            "a dataloader position was loaded, but no loader has taken it, so this run reads the "
            "data from the start; call apply_dataloader_state, or pass dataloader= to load, with a "
            "loader that has load_state_dict"
        )
        return True


def warn_of_stateless(dataloader: Any) -> None:
    """Logs that the position of this dataloader is not saved."""
    logger.warning(
        "the dataloader (%s) has no state_dict, so its position is not saved and a resumed run "
        "reads the data from the start; wrap it in ResumableDataLoader",
        type(dataloader).__name__,
    )
