"""Determines the save and the phase to which each operation belongs.

Only an implementation's layout is known, so its staging names are learned from its operations. An
operation belongs to the save whose step occurs in its name or target; a rank's own saves take
precedence over those of other ranks, because the order among ranks differs from run to run. A name
without a step belongs to the save in which the rank made it. Whatever is renamed away from a
checkpoint's name, and every removal, is pruning by the save that the rank published last.

If a step is saved again while its first save is still in flight, each new directory that names the
step belongs to the oldest of these saves that has none yet. Once the save that made a directory is
over, what a rank does in it belongs to that rank's newest save of the step, which writes in place.

A hidden file in the directory itself, whose name contains neither a step nor a pointer, belongs to
no save: it keeps another job out, or probes what the storage can do.

Out of scope: two saves of one step in flight at once that write in place, into one directory; the
newer one gets both.
"""

from __future__ import annotations

from typing import Protocol

from harness.words import READS

Place = tuple[int | None, str | None]

# Kinds that change no name, so that their place stays the same until a name changes.
_STEADY = frozenset({"open", "write", "fsync", "truncate"})


def _top(path: str) -> str:
    return path.partition("/")[0]


class Signs(Protocol):
    """The part of a layout that a tracker asks; `Layout` documents each."""

    @property
    def pointer(self) -> str | None: ...
    def step_of(self, name: str) -> int | None: ...
    def step_in(self, name: str) -> int | None: ...
    def is_pointer(self, path: str) -> bool: ...
    def is_seal(self, path: str) -> bool: ...
    def is_completing(self, path: str) -> bool: ...


class PhaseTracker:
    """The places of one run's operations."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._newest: int | None = None
        self._by_step: dict[int, int] = {}
        self._own_by_step: dict[tuple[int, int], int] = {}
        self._own_newest: dict[int, int] = {}
        self._worked: dict[int, int] = {}
        self._published: dict[int, int] = {}
        self._done: set[int] = set()
        self._pointed: set[int] = set()
        self._owner: dict[str, int | None] = {}
        self._without_directory: dict[int, list[int]] = {}
        self._claimed: dict[str, int] = {}
        self._ended: dict[int, int] = {}
        self._holder: dict[int, int | None] = {}
        self._away: set[str] = set()
        self._directories: set[str] = set()
        self._beside: set[str] = set()
        self._root: dict[int, Place] = {}
        self._memo: dict[tuple[int, str, str], Place] = {}

    def save_began(self, rank: int, step: int, ordinal: int) -> None:
        """Note that `rank` is about to call `save`, for the `ordinal`-th time in this run."""
        self._newest = max(ordinal, self._newest or 0)
        if ordinal > self._by_step.get(step, 0):
            self._by_step[step] = ordinal
            self._without_directory.setdefault(step, []).append(ordinal)
        self._own_by_step[rank, step] = ordinal
        self._own_newest[rank] = self._worked[rank] = ordinal
        self._memo.clear()

    def save_ended(self, rank: int) -> None:
        """Note that every save that `rank` has begun is over for it."""
        self._ended[rank] = self._own_newest.get(rank, 0)
        self._memo.clear()

    def place(
        self,
        rank: int,
        kind: str,
        path: str,
        target: str | None,
    ) -> tuple[int | None, str | None]:
        """Returns the save (its ordinal) and the phase of the operation."""
        known = self._memo.get((rank, kind, path))
        if known is None:
            known = self._find(rank, kind, path, target)
            if kind not in _STEADY:
                self._memo.clear()
            elif self._newest is not None:
                self._memo[rank, kind, path] = known
        if known[0] is not None and known[1] != "prune":
            self._worked[rank] = known[0]
        return known

    def _find(self, rank: int, kind: str, path: str, target: str | None) -> Place:
        if kind in READS:
            return None, "load" if self._newest is None else None
        if self._newest is None or self._is_beside(kind, path):
            return None, None
        if kind in ("unlink", "rmdir"):
            place = self._removal(rank, path)
        elif kind in ("rename", "exchange", "link") and target is not None:
            place = self._move(rank, kind, path, target)
        elif kind == "symlink":
            place = self._symlink(rank, path, target or "")
        elif kind == "mkdir":
            place = self._mkdir(rank, path)
        else:
            return self._steady(rank, path)
        if "/" not in path or (target is not None and "/" not in target and kind != "symlink"):
            self._root[rank] = place
        return place

    def _is_beside(self, kind: str, path: str) -> bool:
        """Whether it is a hidden file beside the checkpoints, which belongs to no save."""
        if kind not in _STEADY:
            return kind == "unlink" and path in self._beside
        if not path.startswith(".") or "/" in path or path == ".":
            return False
        known = path in self._directories or path in self._owner
        if known or self._signs.step_in(path) is not None or self._signs.is_pointer(path):
            return False
        self._beside.add(path)
        return True

    def _steady(self, rank: int, path: str) -> Place:
        if path == ".":
            return self._root.get(rank) or (self._current(rank), "stage")
        return self._save_of(rank, path), self._phase_of(path)

    def _mkdir(self, rank: int, path: str) -> Place:
        if path == ".":
            return self._beginning(rank), "stage"
        self._directories.add(path)
        top = _top(path)
        step = self._signs.step_in(top)
        if step is None:
            self._owner.setdefault(top, self._own_newest.get(rank, self._newest))
        elif path == top and self._claim(rank, top) is None:
            over = self._ended.get(rank, 0)
            waiting = [save for save in self._without_directory.get(step, ()) if save > over]
            if waiting:
                self._claimed[top] = waiting[0]
                self._without_directory[step] = waiting[1:]
        return self._save_of(rank, path), "prune" if top in self._away else "stage"

    def _symlink(self, rank: int, path: str, text: str) -> Place:
        step = self._signs.step_in(text)
        if step is None and not self._signs.is_pointer(path):
            return self._save_of(rank, path), self._phase_of(path)
        save = self._holder.get(step) if step is not None else None
        if save is None or save in self._pointed:
            # A pointer can be made before the directory that it names has its name.
            save = self._claimant(rank, step) or save
        if save is None:
            save = self._save_of_step(rank, step)
        if save is None:
            save = self._current(rank)
        if save is not None:
            self._pointed.add(save)
        self._owner[path] = save
        self._publish(rank, save if path == self._signs.pointer else None)
        return save, "publish"

    def _claimant(self, rank: int, step: int | None) -> int | None:
        """Returns the oldest save of a step that has a directory and has not yet renamed it."""
        tops = (top for top in self._claimed if self._signs.step_in(top) == step)
        saves = (save for top in tops if (save := self._claim(rank, top)) is not None)
        return None if step is None else min(saves, default=None)

    def _claim(self, rank: int, top: str) -> int | None:
        """Returns the save that made a directory, unless the rank is in a newer one of its step."""
        save, step = self._claimed.get(top), self._signs.step_in(top)
        newest = None if step is None else self._own_by_step.get((rank, step))
        if save is None or newest is None or newest <= save:
            return save
        is_over = save in self._done or save <= self._ended.get(rank, 0)
        return None if is_over else save

    def _move(self, rank: int, kind: str, path: str, target: str) -> Place:
        here, there = self._signs.step_of(path), self._signs.step_of(target)
        if there is not None or (kind == "exchange" and here is not None):
            step, source = (there, path) if there is not None else (here, target)
            save = self._claim(rank, _top(source))
            self._claimed.pop(_top(source), None)
            if save is None:
                save = self._save_of_step(rank, step)
            if save is None:
                save = self._save_of(rank, source)
            if step is not None:
                self._holder[step] = save
            if kind == "exchange":
                self._turn_away(path if there is not None else target, save)
            self._publish(rank, save)
            place: Place = (save, "publish")
        elif here is not None:
            save = self._pruning(rank, path)
            self._turn_away(target, save)
            place = (save, "prune")
        elif self._signs.is_pointer(target) or self._signs.is_completing(target):
            save = self._save_of(rank, path)
            self._publish(rank, save)
            place = (save, "publish")
        else:
            place = self._move_inside(rank, path, target)
        self._follow(path, target)
        return place

    def _move_inside(self, rank: int, path: str, target: str) -> Place:
        source, destination = _top(path), _top(target)
        if source in self._away:
            save = self._owner.get(source)
            self._turn_away(destination, save)
            return save, "prune"
        save = self._save_of(rank, path)
        if self._signs.step_in(destination) is None:
            self._owner.setdefault(destination, save)
        if path in self._directories:
            return save, "seal"
        return save, self._phase_of(target)

    def _removal(self, rank: int, path: str) -> Place:
        self._directories.discard(path)
        # Unlinking the pointer is half of a swap that is not atomic.
        if self._signs.is_pointer(path):
            return self._save_of(rank, path), "publish"
        return self._pruning(rank, path), "prune"

    def _pruning(self, rank: int, path: str) -> int | None:
        top = _top(path)
        if top in self._away:
            return self._owner.get(top)
        replacing = self._save_of_step(rank, self._signs.step_in(top))
        if replacing is not None and replacing not in self._done:
            return replacing
        return self._published.get(rank, self._current(rank))

    def _save_of(self, rank: int, path: str) -> int | None:
        top = _top(path)
        claim = self._claim(rank, top)
        if claim is not None:
            return claim
        if top not in self._away:
            save = self._save_of_step(rank, self._signs.step_in(top))
            if save is not None:
                return save
        if top not in self._owner:
            if self._signs.step_in(top) is not None:
                return self._current(rank)
            self._owner[top] = self._current(rank)
        return self._owner[top]

    def _save_of_step(self, rank: int, step: int | None) -> int | None:
        if step is None:
            return None
        return self._own_by_step.get((rank, step), self._by_step.get(step))

    def _current(self, rank: int) -> int | None:
        return self._worked.get(rank, self._newest)

    def _beginning(self, rank: int) -> int | None:
        """Returns the save that prepares the directory itself; one that published is past that."""
        save = self._current(rank)
        return self._own_newest.get(rank, save) if save in self._done else save

    def _phase_of(self, path: str) -> str:
        if _top(path) in self._away:
            return "prune"
        if self._signs.is_pointer(path) or self._signs.is_completing(path):
            return "publish"
        if path in self._directories or self._signs.step_of(path) is not None:
            return "seal"
        return "seal" if self._signs.is_seal(path) else "flush"

    def _publish(self, rank: int, save: int | None) -> None:
        if save is not None:
            self._published[rank] = save
            self._done.add(save)

    def _turn_away(self, path: str, save: int | None) -> None:
        self._away.add(_top(path))
        self._owner[_top(path)] = save

    def _follow(self, path: str, target: str) -> None:
        """Moves the entries of the directories below a renamed one along with it."""
        if self._signs.step_of(target) is not None:
            self._away.discard(target)
        moved = {one for one in self._directories if one == path or one.startswith(path + "/")}
        self._directories -= moved
        self._directories |= {target + one[len(path) :] for one in moved}
