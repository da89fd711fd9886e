"""Starts from states run at once, unless they need the same port."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from harness.command.from_states import StateStarts
from harness.command.states import states_of
from harness.evidence.operation import Operation
from harness.run.command.starting import LOGS, Ended, Starts

RUN = tuple(
    Operation(index=index, time_s=0.0, rank=0, thread=1, kind="mkdir", path=str(index))
    for index in range(5)
)


class OnePort:
    """Of starts that run at once, only the first one gets its port."""

    def run_all(self, folders: Iterator[Path], *, at_once: int, limit_s: float) -> Iterator[Ended]:
        taken = list(folders)
        for place, folder in enumerate(taken):
            failed = at_once > 1 and place > 0
            (folder / LOGS).mkdir(parents=True)
            said = "OSError: [Errno 98] Address already in use" if failed else "ended"
            (folder / LOGS / "rank0.log").write_text(said)
            yield Ended(
                statuses=(int(failed),), hung=False, leaked=(), seconds=limit_s, folder=folder
            )


def starts(tmp_path: Path, *, seconds: float) -> StateStarts:
    return StateStarts(
        starts=cast(Starts, OnePort()),
        folder=tmp_path,
        at_once=3,
        limit_s=1.0,
        until_s=time.monotonic() + seconds,
    )


def test_starts_that_need_the_same_port_are_made_one_at_a_time(tmp_path: Path) -> None:
    states = [one for one in states_of(RUN, b"") if one.kind == "killed"]
    found = list(starts(tmp_path, seconds=math.inf).run(states))
    assert sorted(state.place for state, _ in found) == [0, 1, 2, 3, 4, 5]
    assert not any(ended.failed for _, ended in found)
    assert list(tmp_path.iterdir()) == []


def test_none_begins_after_the_time_is_over(tmp_path: Path) -> None:
    assert list(starts(tmp_path, seconds=-1.0).run(states_of(RUN, b""))) == []
