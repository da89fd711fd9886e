"""Determines which checkpoints are on an abandoned branch: the newest does not descend from them.

A manifest names the save that its run last made or loaded before it (``parent``). A run that
resumes from an older checkpoint abandons those saved after it: for some reason, training did not
continue from them. They count as older than all checkpoints that training descends from, both when
a damaged checkpoint is passed over and when old ones are deleted.

If a parent is missing, all older checkpoints count as ancestors, because nothing says otherwise. A
run that started from scratch has no ancestors.
"""

from collections.abc import Iterable

from kempnerforge.checkpoint.format.manifest import Head

__all__ = ["abandoned_branches"]


def abandoned_branches(committed: Iterable[Head]) -> frozenset[str]:
    """Returns the save ids of checkpoints that the last committed one does not descend from."""
    newest_first = sorted(committed, key=lambda found: found.sequence, reverse=True)
    places = {found.save_id: place for place, found in enumerate(newest_first)}
    abandoned: set[str] = set()
    place = 0
    while place < len(newest_first):
        parent, older = newest_first[place].parent, place + 1
        # A parent that is not older is not one; directories have been copied.
        ancestor = len(newest_first) if parent is None else max(places.get(parent, older), older)
        abandoned.update(found.save_id for found in newest_first[older:ancestor])
        place = ancestor
    return frozenset(abandoned)
