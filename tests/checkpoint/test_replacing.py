"""A step saved again without an atomic swap of names is whole at every instant, for every reader.

Every crash point of the save is tried, then every crash point of its completion.
:mod:`tests.checkpoint.test_histories` covers deaths, power cuts and where `latest` leads after each
operation.
"""

import errno
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.protocol.effects import Unlocked
from kempnerforge.checkpoint.protocol.replacing import Replacement, find_unfinished
from kempnerforge.cli.mending import apply, plan_repair
from tests.checkpoint.effects import runtime
from tests.checkpoint.memory_storage import Directory, File, MemoryStorage
from tests.checkpoint.test_histories import ROOT, Histories, TakenByAnother, target_of, whole

STEP = 1
OLD, NEW = 2, 3


def before_replacing() -> Histories:
    """Steps 0 and 1 are saved, `latest` names step 1, names cannot be exchanged."""
    history = Histories()
    history.start(exchanges=False, keep=0)
    history.save(step=0)
    history.save(step=STEP)
    return history


def deaths() -> Iterator[Histories]:
    """The save of step 1 again, dead before each of its operations in turn."""
    for survives in range(100):
        history = before_replacing()
        history.save_and_die(step=STEP, survives=survives)
        history.holds()
        if history.running:
            return
        yield history
    raise AssertionError("the save never came to its end")


def latest_of(history: Histories) -> str:
    return target_of(history.root().names[layout.LATEST])


def version_of(history: Histories, name: str) -> int:
    found = whole(history.root().names[name])
    assert found is not None
    return found.version


def test_latest_takes_every_name_of_the_protocol_and_is_whole_under_each() -> None:
    seen = set()
    for history in deaths():
        found = find_unfinished(latest_of(history))
        hidden = latest_of(history).split("-", maxsplit=1)[0] if found else "step"
        seen.add((hidden, f"step_{STEP}" in history.root().names))
        reader = history.choose(access=TakenByAnother())
        assert reader is not None
        assert (reader.step, reader.version in (OLD, NEW)) == (STEP, True)
    assert seen == {
        ("step", True),
        (".staging", True),
        (".staging", False),
        (".replaced", False),
        (".replaced", True),
    }


def test_who_comes_next_completes_what_latest_has_named() -> None:
    for history in deaths():
        committed = find_unfinished(latest_of(history)) is not None
        finished = version_of(history, latest_of(history)) == NEW
        history.resume()
        history.holds()
        assert latest_of(history) == f"step_{STEP}"
        assert version_of(history, f"step_{STEP}") == (NEW if committed or finished else OLD)
        history.save(step=STEP)
        history.holds()


def test_a_death_while_it_is_completed_loses_nothing_either() -> None:
    interrupted = 0
    for number, dead in enumerate(deaths()):
        if find_unfinished(latest_of(dead)) is None:
            continue
        for survives in range(100):
            history = before_replacing()
            history.save_and_die(step=STEP, survives=number)
            history.die_while_resuming(survives=survives)
            history.holds()
            if history.running:
                break
            history.power_fails_completely()
            history.resume()
            history.holds()
            interrupted += 1
    assert interrupted > 100


def test_repair_completes_it_as_the_next_start_would() -> None:
    for history in deaths():
        committed = find_unfinished(latest_of(history)) is not None
        plan = plan_repair(ROOT, history.storage, deep=True)
        assert plan.mended
        assert bool(plan.steps) == committed
        apply(ROOT, plan.steps, history.storage)
        history.holds()
        assert latest_of(history) == f"step_{STEP}"
        history.resume()
        history.holds()


def test_an_operation_that_fails_once_leaves_the_old_version_with_its_name() -> None:
    failures = 0
    for succeeds in range(100):
        history = before_replacing()
        history.storage.until_error = succeeds
        try:
            history.attempt(STEP)
        except CheckpointError:
            assert version_of(history, f"step_{STEP}") == OLD
            assert latest_of(history) == f"step_{STEP}"
            failures += 1
        else:
            assert version_of(history, f"step_{STEP}") == NEW
        if history.storage.until_error >= 0:
            break
        history.storage.until_error = -1
        history.holds()
        history.note_unacknowledged()
        history.save(step=STEP)
        history.holds()
    assert 20 < failures < 100


class BreakingStorage(MemoryStorage):
    """Works for a while, then every change fails until :attr:`left` is set to None again."""

    def __init__(self) -> None:
        super().__init__(exchanges=False)
        self.left: int | None = None

    def _live(self) -> None:
        super()._live()
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))


def broken_after(works: int) -> tuple[Histories, bool]:
    """A save of step 1 again on storage that breaks, and whether the save failed."""
    history = before_replacing()
    storage = BreakingStorage()
    storage.top, storage.watcher = history.storage.top, history.watch
    history.storage, storage.left = storage, works
    try:
        history.attempt(STEP)
    except CheckpointError:
        failed = True
    else:
        failed = False
    storage.left = None
    history.holds()
    return history, failed


def test_storage_that_breaks_for_good_leaves_what_latest_names_and_the_next_save_works() -> None:
    hidden = 0
    for works in range(100):
        history, failed = broken_after(works)
        hidden += find_unfinished(latest_of(history)) is not None
        assert version_of(history, latest_of(history)) in (OLD, NEW)
        history.told.pop(STEP)  # one of the two versions; which, the next start decides
        history.save(step=STEP)
        history.holds()
        if not failed:
            break
    assert hidden > 5


def test_a_damaged_new_version_gives_the_old_one_its_name_back() -> None:
    damaged = 0
    for history in deaths():
        new = history.root().names.get(latest_of(history))
        if not latest_of(history).startswith(".staging"):
            continue
        assert isinstance(new, Directory)
        new.names[layout.TRAIN_STATE] = File(b"")
        prune.finish_off(ROOT, runtime(history.storage))
        assert latest_of(history) == f"step_{STEP}"
        assert version_of(history, f"step_{STEP}") == OLD
        damaged += 1
    assert damaged > 2


def test_of_several_versions_set_aside_the_last_that_is_whole_gets_the_name() -> None:
    history = before_replacing()
    found = []
    for _ in range(3):
        history.save(step=STEP)
        found.append((history.version, deepcopy(history.root().names[f"step_{STEP}"])))
    half_deleted = found[-1][1]
    assert isinstance(half_deleted, Directory)
    del half_deleted.names[layout.TRAIN_STATE]
    del history.root().names[f"step_{STEP}"]
    # By name the oldest comes first.
    for save_id, (_, version) in zip(("0" * 16, "2" * 16, "1" * 16), found, strict=True):
        aside = Leftover(kind=LeftoverKind.replaced, step=STEP, save_id=save_id)
        history.root().names[layout.format_leftover(aside)] = version
    prune.recover(ROOT, runtime(history.storage))
    assert version_of(history, f"step_{STEP}") == found[1][0]


def test_a_directory_that_cannot_be_changed_is_still_loaded_from() -> None:
    for history in deaths():
        history.storage.until_error = 0
        found = history.choose(access=Unlocked())
        assert found is not None
        assert found.step == STEP


# The bugs that the tests above exist for.


def violations_of_a_replacement() -> str:
    history = before_replacing()
    history.attempt(STEP)
    return "\n".join(history.violations)


def test_a_latest_that_does_not_follow_the_renames_is_noticed() -> None:
    moves = Replacement.moves
    with patch.object(Replacement, "moves", lambda self: tuple(moves(self)[n] for n in (1, 3, 4))):
        assert "live: latest names nothing whole" in violations_of_a_replacement()


def test_a_latest_that_follows_too_late_is_noticed() -> None:
    moves = Replacement.moves
    order = (0, 1, 3, 2, 4)
    with patch.object(Replacement, "moves", lambda self: tuple(moves(self)[n] for n in order)):
        assert "live: latest names nothing whole" in violations_of_a_replacement()


def test_a_new_version_that_is_removed_while_latest_names_it_is_noticed() -> None:
    with patch.object(prune, "_is_needed", lambda path, storage: False):
        for history in deaths():
            prune.remove(hidden_directories(history), runtime(history.storage))
            if "live: latest names nothing whole" in history.violations:
                return
    raise AssertionError("nobody noticed")


def hidden_directories(history: Histories) -> tuple[Path, ...]:
    return tuple(ROOT / name for name in history.leftovers() if layout.parse_leftover(name))
