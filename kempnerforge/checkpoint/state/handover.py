"""Keeps the state of a dataloader that does not exist yet, and reports state that only one side
has."""

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
    "dataloader": "the loader that was given has no load_state_dict for its position, so the data "
    "is read from the start; wrap it in ResumableDataLoader in both runs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """State of scheduler and dataloader that only one of the two sides has."""

    not_saved: tuple[str, ...]
    """Given to the load, not in the checkpoint."""
    not_restored: tuple[str, ...]
    """In the checkpoint, not taken; without a position that a loader may still be given."""

    @staticmethod
    def of(
        state: Mapping[str, Any], given: Mapping[str, Any], exclude: Exclusion, *, pending: bool
    ) -> "Unmatched":
        """Compare a train state with the objects that a load was given, None where there is none.

        Args:
            state: The train state of this rank.
            given: What the load was given, by its name there.
            exclude: What the load leaves alone on purpose.
            pending: Whether the position of the dataloader has not been taken.
        """
        wanted = [name for name in given if not exclude.covers(name)]
        taken = {
            "scheduler": given["scheduler"] is not None,
            # Without a loader, one may still come.
            "dataloader": given["dataloader"] is None or not pending,
        }
        return Unmatched(
            not_saved=tuple(n for n in wanted if given[n] is not None and n not in state),
            not_restored=tuple(n for n in wanted if n in state and not taken[n]),
        )

    def say(self, path: object) -> None:
        """Warn of each."""
        for name in self.not_saved:
            warn_of_missing(name, path)
        for name in self.not_restored:
            logger.warning("the %s state of %s is not restored; %s", name, path, _LEFT[name])


def warn_of_missing(name: str, path: object) -> None:
    """Say that the checkpoint at ``path`` has nothing for what was given as ``name``."""
    logger.warning("%s has no state of the %s; %s", path, name, _WITHOUT[name])


class Handover:
    """The position of a dataloader, and the generators that go with it, until a loader takes them.

    Building a loader, and handing its position over, may draw random numbers; the generators are
    set once more afterwards.

    Args:
        state: The train state that was loaded, of this rank.
        asked: Whether a load that is given no loader leaves the question open for one to come.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, *, asked: bool = False) -> None:
        self._position = None if state is None else state.get("dataloader")
        self._generators: Mapping[str, Any] | None = None
        self._missing = asked and self._position is None
        self._warned = False

    @property
    def pending(self) -> bool:
        """Whether there is a position that no loader has taken."""
        return self._position is not None

    def keep_generators(self, generators: Mapping[str, Any]) -> None:
        """Set these again when a loader has got its position."""
        self._generators = generators

    def give(self, dataloader: Any) -> None:
        """Hand over what there is, once; what the loader raises is passed on, and all is kept."""
        if self._position is not None and hand_over(self._position, dataloader):
            self._position = None
        if self._generators is not None:
            set_rng_state(self._generators)
            if self._position is None:
                self._generators = None

    def found_missing(self) -> bool:
        """Whether a loader has come and there was nothing for it; said once."""
        missing, self._missing = self._missing, False
        return missing

    def training_goes_on(self) -> bool:
        """Whether a position is pending that nobody has been warned of yet; warns.

        From now on the generators are those of this training.
        """
        self._generators, self._missing = None, False
        if not self.pending or self._warned:
            return False
        self._warned = True
        logger.warning(
            "a dataloader position was loaded and no loader has taken it, so this run reads the "
            "data from the start; call apply_dataloader_state, or pass dataloader= to load, with a "
            "loader that has load_state_dict"
        )
        return True


def warn_of_stateless(dataloader: Any) -> None:
    """Say that the position of this dataloader is not saved."""
    logger.warning(
        "the dataloader (%s) has no state_dict, so its position is not saved and a resumed run "
        "reads the data from the start; wrap it in ResumableDataLoader",
        type(dataloader).__name__,
    )
