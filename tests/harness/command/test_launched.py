"""The ranks of a command's own launcher are known by the environment that it gives them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.evidence.operation import Operation
from harness.faults.base import Fault, Target
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.faults.strike import make_strike
from harness.jobs.command.program import executed
from harness.run.command.server import CommandServer
from harness.run.command.starting import Starts, Watched, prepared
from harness.run.support import missing_mounts
from harness.world import World

pytestmark = [
    pytest.mark.skipif(missing_mounts() is not None, reason=str(missing_mounts())),
    pytest.mark.timeout(60),
]

LAUNCHER = """\
import os, subprocess, sys
root, again = sys.argv[2], sys.argv[3:]

def start(rank):
    return subprocess.Popen([sys.executable, sys.argv[1], root], env={**os.environ, "RANK": rank})

os.makedirs(root, exist_ok=True)
ranks = {rank: start(rank) for rank in "01"}
statuses = {rank: one.wait() for rank, one in ranks.items()}
for rank in [one for one in again if statuses[one]]:
    statuses[rank] = start(rank).wait()
open(f"{root}/launcher", "w").write("done")
sys.exit(any(statuses.values()))
"""
RANK = """\
import os, subprocess, sys, threading
from pathlib import Path
root, rank = Path(sys.argv[1]), os.environ["RANK"]

def write(name):
    (root / f"{name}-{rank}").write_text("all of it")

write("main")
thread = threading.Thread(target=write, args=("thread",))
thread.start()
thread.join()
text = f"open('{root}/child-{rank}', 'w').write('all of it')"
subprocess.run([sys.executable, "-S", "-c", text], check=True)
"""

Watching = Callable[..., Watched]


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """Runs the launcher under the supervisor, with faults."""
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    (tmp_path / "rank.py").write_text(RANK)
    for name in ("server", "at"):
        (tmp_path / name).mkdir()
    program = executed((), cwd=str(Path(__file__).parents[3]), environment=os.environ)
    with CommandServer(program, (), tmp_path / "server") as server:
        server.wait_until_ready()

        def watch(*words: str, faults: tuple[Fault, ...] = ()) -> Watched:
            root = tmp_path / "at" / "checkpoints"
            line = [sys.executable, str(tmp_path / "launcher.py"), str(tmp_path / "rank.py")]
            starts = Starts(
                server,
                (program.changed(words=(*line, str(root), *words)),),
                tmp_path / "at",
                launches=2,
            )
            strikes = tuple(
                make_strike(fault, number, World(dp_shard=2)) for number, fault in enumerate(faults)
            )
            return starts.watch(prepared(tmp_path / "start"), limit_s=30.0, strikes=strikes)

        yield watch


def written(operations: tuple[Operation, ...]) -> set[tuple[int, str]]:
    return {(one.rank, one.path) for one in operations if one.kind == "write"}


def whole(found: Watched) -> list[str]:
    files = found.ended.directory.iterdir()
    return sorted(one.name for one in files if one.read_text().strip() == "all of it")


def kill(rank: int, nth: int) -> Kill:
    return Kill(kill=Target(rank=rank), at=Point(rank=rank, operation="write", nth=nth))


def test_each_operation_has_the_rank_of_its_process(watching: Watching) -> None:
    found = watching()
    assert found.ended.statuses == (0,)
    names = {(rank, f"{name}-{rank}") for name in ("main", "thread", "child") for rank in (0, 1)}
    assert written(found.operations) == names | {(0, "launcher")}


def test_a_killed_rank_takes_neither_the_other_nor_the_launcher_with_it(watching: Watching) -> None:
    found = watching(faults=(kill(0, 2),))
    assert found.fired
    assert not found.ended.hung, "what the launcher itself asks for is answered"
    assert found.ended.statuses == (1,)
    assert whole(found) == ["child-1", "main-0", "main-1", "thread-1"]


def test_a_rank_that_its_launcher_starts_again_goes_on(watching: Watching) -> None:
    found = watching("1", faults=(kill(1, 3),))
    assert found.fired
    assert found.ended.statuses == (0,)
    assert whole(found) == ["child-0", "child-1", "main-0", "main-1", "thread-0", "thread-1"]


WAITS = """\
import os, subprocess, sys
if sys.argv[2:]:
    sys.exit(subprocess.run([sys.executable, sys.argv[0], sys.argv[2]]).returncode)
with open(sys.argv[1], "w") as pipe:
    print("ready", file=pipe, flush=True)
    end, other = os.pipe()
    os.read(end, 1)
"""


def test_nothing_outlives_a_test_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    os.mkfifo(tmp_path / "pipe")
    words = [sys.executable, str(tmp_path / "waits.py"), "{dir}", str(tmp_path / "pipe")]
    harness = [sys.executable, "-m", "harness", "try", "--", *words]
    with (
        subprocess.Popen(harness, stdout=subprocess.DEVNULL) as process,
        (tmp_path / "pipe").open() as pipe,
    ):
        assert pipe.readline() == "ready\n"
        process.kill()
        assert pipe.read() == "", "the rank of the launcher has closed its end"
