"""Which save and which phase each operation belongs to, from the operations alone."""

from __future__ import annotations

import time

import pytest

from harness.layouts.phases import PhaseTracker
from harness.layouts.registry import DEFAULT, LAYOUTS

# One line an operation: rank, kind, path, target, the save and the phase that it must get. A line
# `save RANK STEP ORDINAL` tells that a save began.
STAGED = """
0 mkdir .old - - -
0 unlink .staging-step_9/x - - -
0 read step_2/.metadata - - load
save 0 2 1
save 1 2 1
0 mkdir .staging-step_2-ab12 - 1 stage
0 mkdir .staging-step_2-ab12/pp0 - 1 stage
1 open .staging-step_2-ab12/pp0/__1_0.distcp - 1 flush
1 write .staging-step_2-ab12/pp0/__1_0.distcp - 1 flush
1 fsync .staging-step_2-ab12/pp0/__1_0.distcp - 1 flush
0 write .staging-step_2-ab12/pp0/.metadata.tmp - 1 flush
0 rename .staging-step_2-ab12/pp0/.metadata.tmp .staging-step_2-ab12/pp0/.metadata 1 flush
0 write .staging-step_2-ab12/train_state.pt - 1 flush
0 write .staging-step_2-ab12/ranks/rank_00000.pt - 1 flush
0 write .staging-step_2-ab12/metadata.json - 1 seal
0 rename .staging-step_2-ab12/manifest.json.tmp .staging-step_2-ab12/manifest.json 1 seal
0 fsync .staging-step_2-ab12/pp0 - 1 seal
0 fsync .staging-step_2-ab12 - 1 seal
0 rename .staging-step_2-ab12 step_2 1 publish
0 fsync . - 1 publish
0 symlink .latest-ab12 step_2 1 publish
0 rename .latest-ab12 latest 1 publish
0 fsync . - 1 publish
0 open .lock - - -
0 open .lease-1 - - -
0 write .lease-1 - - -
0 fsync .lease-1 - - -
0 unlink .lease-1 - - -
0 rename step_1 .trash-step_1-ab12 1 prune
0 fsync . - 1 prune
0 unlink .trash-step_1-ab12/metadata.json - 1 prune
0 rmdir .trash-step_1-ab12 - 1 prune
"""

SAVED_TWICE = """
save 0 4 1
save 1 4 1
save 0 4 2
save 1 4 2
0 mkdir .staging-step_4-aa - 1 stage
1 write .staging-step_4-aa/x - 1 flush
0 rename .staging-step_4-aa step_4 1 publish
0 fsync . - 1 publish
0 symlink .latest-aa step_4 1 publish
0 rename .latest-aa latest 1 publish
0 mkdir .staging-step_4-bb - 2 stage
1 write .staging-step_4-bb/x - 2 flush
0 exchange .staging-step_4-bb step_4 2 publish
0 symlink .latest-bb step_4 2 publish
0 unlink .staging-step_4-bb/x - 2 prune
"""

POINTER_FIRST = """
save 0 4 1
0 symlink .latest-aa latest 1 publish
0 unlink .latest-aa - 1 publish
save 0 4 2
0 mkdir .staging-step_4-aa - 1 stage
0 symlink .latest-aa step_4 1 publish
0 rename .staging-step_4-aa step_4 1 publish
0 fsync . - 1 publish
0 rename .latest-aa latest 1 publish
0 mkdir .staging-step_4-bb - 2 stage
0 write .staging-step_4-bb/x - 2 flush
0 symlink .latest-bb step_4 2 publish
0 exchange .staging-step_4-bb step_4 2 publish
0 rename .latest-bb latest 2 publish
0 fsync . - 2 publish
0 unlink .staging-step_4-bb/x - 2 prune
save 0 4 3
0 mkdir .staging-step_4-cc - 3 stage
0 symlink .latest-cc .staging-step_4-cc 3 publish
0 rename .latest-cc latest 3 publish
0 symlink .latest-cc .replaced-step_4-cc 3 publish
0 rename step_4 .replaced-step_4-cc 3 prune
0 rename .latest-cc latest 3 publish
0 symlink .latest-cc step_4 3 publish
0 rename .staging-step_4-cc step_4 3 publish
0 rename .latest-cc latest 3 publish
"""

MADE_EACH_TIME = """
save 0 2 1
0 mkdir . - 1 stage
0 fsync . - 1 stage
0 rename .staging-step_2 step_2 1 publish
save 0 4 2
0 mkdir . - 2 stage
0 fsync . - 2 stage
"""

MADE_IN_TURN = """
save 0 2 1
0 mkdir . - 1 stage
0 mkdir .staging-step_2 - 1 stage
save 0 4 2
0 rename .staging-step_2 step_2 1 publish
0 fsync . - 1 publish
0 rename step_1 .gone 1 prune
0 unlink .gone/a - 1 prune
0 mkdir . - 2 stage
0 fsync . - 2 stage
0 mkdir .staging-step_4 - 2 stage
"""

IN_PLACE = """
save 0 4 1
save 1 4 1
1 mkdir step_4 - 1 stage
0 mkdir step_4/pp0 - 1 stage
1 write step_4/pp0/__1_0.distcp - 1 flush
0 rename step_4/pp0/.metadata.tmp step_4/pp0/.metadata 1 flush
0 write step_4/train_state.pt - 1 flush
0 write step_4/metadata.json - 1 seal
0 fsync step_4 - 1 seal
0 symlink latest.tmp step_4 1 publish
0 rename latest.tmp latest 1 publish
0 unlink step_2/.metadata - 1 prune
0 rmdir step_2 - 1 prune
save 0 14 2
0 mkdir step_14 - 2 stage
0 write step_14/x - 2 flush
0 unlink latest - 2 publish
0 symlink latest step_14 2 publish
"""

BACKGROUND = """
save 0 2 1
0 mkdir .staging-step_2 - 1 stage
0 open .staging-step_2/a - 1 flush
save 0 4 2
0 mkdir .staging-step_4 - 2 stage
0 write .staging-step_2/a - 1 flush
0 open .staging-step_4/a - 2 flush
0 rename .staging-step_2 step_2 1 publish
0 write .staging-step_4/a - 2 flush
0 fsync . - 1 publish
0 symlink .link step_2 1 publish
0 write .staging-step_4/a - 2 flush
0 rename .link latest 1 publish
0 rename step_1 .gone 1 prune
0 write .staging-step_4/a - 2 flush
0 unlink .gone/a - 1 prune
0 rename .staging-step_4 step_4 2 publish
"""

NAMELESS = """
save 0 2 1
save 1 2 1
0 mkdir tmp-6f3a - 1 stage
1 write tmp-6f3a/b - 1 flush
0 write tmp-6f3a/a - 1 flush
0 fsync tmp-6f3a - 1 seal
save 0 4 2
0 mkdir tmp-77aa - 2 stage
1 write tmp-6f3a/b - 1 flush
0 write tmp-77aa/a - 2 flush
0 rename tmp-6f3a step_2 1 publish
0 rename tmp-77aa step_4 2 publish
"""

REPLACED = """
save 0 2 1
0 mkdir .staging-step_2 - 1 stage
0 rename .staging-step_2 step_2 1 publish
save 0 2 2
0 mkdir .staging-step_2 - 2 stage
0 write .staging-step_2/a - 2 flush
0 exchange .staging-step_2 step_2 2 publish
0 fsync . - 2 publish
0 rename .staging-step_2 .replaced-step_2 2 prune
0 unlink .replaced-step_2/a - 2 prune
save 0 2 3
0 mkdir .new-step_2 - 3 stage
0 rename step_2 .replaced-step_2 3 prune
0 rename .new-step_2 step_2 3 publish
0 unlink .replaced-step_2/a - 3 prune
"""

# The directory stays, and so do its names. Rank 0 publishes later than rank 1 returns.
IN_PLACE_AGAIN = """
save 0 4 1
save 1 4 1
0 mkdir step_4 - 1 stage
1 mkdir step_4 - 1 stage
1 write step_4/__1_0.distcp - 1 flush
end 1
save 1 4 2
1 write step_4/__1_0.distcp - 2 flush
0 write step_4/.metadata - 1 flush
0 symlink .latest.tmp step_4 1 publish
0 rename .latest.tmp latest 1 publish
end 0
save 0 4 2
0 mkdir step_4 - 2 stage
0 write step_4/__0_0.distcp - 2 flush
0 symlink .latest.tmp step_4 2 publish
0 rename .latest.tmp latest 2 publish
0 fsync . - 2 publish
end 0
end 1
save 0 4 3
save 1 4 3
0 open step_4/__0_0.distcp - 3 flush
1 write step_4/__1_0.distcp - 3 flush
0 unlink step_4/.metadata - 3 prune
"""

IN_PLACE_IN_TURN = """
save 0 4 1
0 mkdir step_4 - 1 stage
0 write step_4/a - 1 flush
0 symlink .latest.tmp step_4 1 publish
0 rename .latest.tmp latest 1 publish
save 0 4 2
0 write step_4/a - 2 flush
"""


def _place(
    tracker: PhaseTracker, rank: int, kind: str, path: str, target: str | None = None
) -> tuple[int | None, str | None]:
    return tracker.place(rank, kind, path, target)


@pytest.mark.parametrize(
    "event_log",
    [
        STAGED,
        SAVED_TWICE,
        POINTER_FIRST,
        MADE_EACH_TIME,
        MADE_IN_TURN,
        IN_PLACE,
        IN_PLACE_AGAIN,
        IN_PLACE_IN_TURN,
        BACKGROUND,
        NAMELESS,
        REPLACED,
    ],
    ids=[
        "staged",
        "saved-twice",
        "pointer-first",
        "made-each-time",
        "made-in-turn",
        "in-place",
        "in-place-again",
        "in-place-in-turn",
        "background",
        "nameless",
        "replaced",
    ],
)
def test_each_operation_gets_its_save_and_phase(event_log: str) -> None:
    tracker = LAYOUTS[DEFAULT].tracker()
    for line in event_log.strip().splitlines():
        words = line.split()
        if words[0] == "save":
            tracker.save_began(int(words[1]), int(words[2]), int(words[3]))
            continue
        if words[0] == "end":
            tracker.save_ended(int(words[1]))
            continue
        rank, kind, path, *rest = words
        target = (
            rest.pop(0) if len(rest) == 3 and kind in ("rename", "exchange", "symlink") else None
        )
        save, phase = rest[-2:]
        expected = (None if save == "-" else int(save), None if phase == "-" else phase)
        assert (line, *_place(tracker, int(rank), kind, path, target)) == (line, *expected)


def test_a_rank_that_is_still_in_an_earlier_save_of_the_step_keeps_it() -> None:
    tracker = LAYOUTS[DEFAULT].tracker()
    for rank in (0, 1):
        tracker.save_began(rank, 2, 1)
    tracker.save_began(1, 2, 2)
    assert _place(tracker, 0, "write", ".staging-step_2/a") == (1, "flush")
    assert _place(tracker, 1, "write", ".staging-step_2/a") == (2, "flush")


def test_a_step_is_read_as_a_whole_number() -> None:
    tracker = LAYOUTS[DEFAULT].tracker()
    tracker.save_began(0, 1, 1)
    tracker.save_began(0, 12, 2)
    tracker.save_began(0, 2, 3)
    assert _place(tracker, 0, "mkdir", ".staging-step_12") == (2, "stage")
    assert _place(tracker, 0, "mkdir", ".staging-step_1") == (1, "stage")


def test_placing_an_operation_takes_microseconds() -> None:
    tracker = LAYOUTS[DEFAULT].tracker()
    tracker.save_began(0, 2, 1)
    started = time.process_time()
    for number in range(20_000):
        _place(tracker, 0, "write", f".staging-step_2/{number % 50}.distcp")
    # Measured 0.5 us each; the bound only catches something of another order.
    assert (time.process_time() - started) / 20_000 < 1e-4
