"""Which checkpoints the newest one descends from, and which is on an abandoned branch.

A manifest names the save that its run made or loaded before (``parent``). Who resumes from an older
checkpoint leaves those saved after it behind: whatever was wrong with them, training did not go on
from there. They count as older than all that training did descend from, both when a damaged
checkpoint is passed over and when old ones are deleted.

Where a parent is gone, all that is older counts as descended from, because nothing says otherwise.
A run that began afresh descends from nothing.
"""

from collections.abc import Iterable

from kempnerforge.checkpoint.format.manifest import Head

__all__ = ["abandoned_branches"]


def abandoned_branches(committed: Iterable[Head]) -> frozenset[str]:
    """Save ids of the checkpoints that the last committed one does not descend from."""
    newest_first = sorted(committed, key=lambda found: found.sequence, reverse=True)
    places = {found.save_id: place for place, found in enumerate(newest_first)}
    aside: set[str] = set()
    place = 0
    while place < len(newest_first):
        parent, older = newest_first[place].parent, place + 1
        # A parent that is not older is no parent; somebody has been copying directories.
        ancestor = len(newest_first) if parent is None else max(places.get(parent, older), older)
        aside.update(found.save_id for found in newest_first[older:ancestor])
        place = ancestor
    return frozenset(aside)
