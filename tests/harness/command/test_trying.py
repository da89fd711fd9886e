"""Unmodified scripts are tested from outside: a wrong one is found, a right one not accused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.command.table import causes_of, describe, is_green
from harness.command.trying import CommandReport, CommandTest, TryOptions
from harness.run.command.command import Command, CommandError
from harness.run.support import missing_mounts

pytestmark = [
    pytest.mark.skipif(missing_mounts() is not None, reason=str(missing_mounts())),
    pytest.mark.timeout(300),
]

SCRIPT = Path(__file__).with_name("train.py")


def attempted(
    folder: Path, *words: str, ranks: int = 1, **options: object
) -> tuple[CommandReport, list[str]]:
    said: list[str] = []
    command = Command(words=words, cwd=folder, environment=dict(os.environ), ranks=ranks)
    (folder / "attempt").mkdir()
    asked = TryOptions(command=command, budget_s=240.0, **options)  # type: ignore[arg-type]
    test = CommandTest(asked, folder / "attempt", said.append, shown=folder / "shown")
    return test.run(), said


def of_script(folder: Path, how: str, **options: object) -> tuple[CommandReport, list[str]]:
    return attempted(folder, sys.executable, str(SCRIPT), "{dir}", how, **options)  # type: ignore[arg-type]


def kinds(found: CommandReport) -> set[tuple[str, str]]:
    """The outcomes, and what it takes to see them."""
    return {(str(cause.outcome), cause.first.setting.kind) for cause in causes_of(found)}


def test_a_correct_loop_is_not_accused(tmp_path: Path) -> None:
    found, said = of_script(tmp_path, "renames")
    assert is_green(found), describe(found)
    assert found.from_states == found.states > 15
    assert len(found.tried) > found.from_states + 10, "faults while it ran"
    assert found.not_judged == ()
    assert any(line.startswith("forked from a process") for line in said)
    assert "deterministic; its result is state.json" in said


def test_a_file_that_is_overwritten_in_place_is_torn_by_a_kill(tmp_path: Path) -> None:
    found, _ = of_script(tmp_path, "in place")
    assert ("HARD_FAIL", "killed") in kinds(found)
    text = describe(found)
    assert "JSONDecodeError" in text
    assert "first: killed after operation 1, open state.json" in text


def test_a_rename_without_a_sync_fails_after_a_power_cut_only(tmp_path: Path) -> None:
    found, _ = of_script(tmp_path, "unsynced")
    assert kinds(found) == {("HARD_FAIL", "power")}


def test_what_a_resume_forgets_is_seen_in_the_result_and_in_the_first_other_line(
    tmp_path: Path,
) -> None:
    found, _ = of_script(tmp_path, "forgets")
    divergence = next(one for one in causes_of(found) if one.outcome == "SILENT_DIVERGENCE")
    assert divergence.first.text.startswith("state.json has other bytes; the first other step line")
    assert divergence.first.resumed == 3


def test_work_that_is_removed_too_early_is_lost(tmp_path: Path) -> None:
    found, _ = of_script(tmp_path, "removes", result=("step-6.json",))
    assert ("LOST_WORK", "killed") in kinds(found)
    assert "it resumed at step 1, although it had resumed from a newer checkpoint" in describe(
        found
    )


def faults(found: CommandReport) -> list[tuple[str, str]]:
    return [
        (str(cause.outcome), cause.first.setting.text)
        for cause in causes_of(found)
        if cause.first.setting.kind == "fault"
    ]


def test_an_error_of_the_storage_that_nobody_looks_at_is_found(tmp_path: Path) -> None:
    found, _ = of_script(tmp_path, "ignores", most=12)
    (outcome, text) = faults(found)[0]
    assert outcome == "HARD_FAIL"
    # An error that comes once is healed by the next save.
    assert text == "rank 0 meets ENOSPC from then on at operation 2, write state.tmp"


def test_a_command_that_waits_for_room_for_ever_hangs(tmp_path: Path) -> None:
    found, _ = of_script(tmp_path, "waits", most=1, limit_s=3.0)
    assert faults(found) == [("HANG", "rank 0 meets ENOSPC once at operation 2, write state.tmp")]


def test_a_script_that_is_not_deterministic_is_not_accused_of_its_result(tmp_path: Path) -> None:
    found, said = of_script(tmp_path, "drifts", most=6)
    assert any(line.startswith("not deterministic: ") for line in said)
    assert not [one for one in found.tried if one.outcome == "SILENT_DIVERGENCE"]
    assert "state.json: two uninterrupted runs leave different ones" in found.not_judged


ELSEWHERE = """\
import os, shutil, sys, tempfile
from pathlib import Path
root, other = Path(sys.argv[1]), Path(sys.argv[2])
root.mkdir(exist_ok=True)
with (other / "metrics.csv").open("a") as metrics:
    metrics.write("one line")
(other / "runs" / "a").mkdir(parents=True, exist_ok=True)
for number in range(3):
    (other / "runs" / "a" / str(number)).write_text(str(os.getpid()))
(other / "kept").open("r+").close()
os.open(os.devnull, os.O_WRONLY)
print("step 1 of 1")
whole = tempfile.NamedTemporaryFile("w", dir=other, delete=False)
with whole:
    whole.write("whole")
    whole.flush()
    shutil.move(whole.name, root / "state-1")
"""


def test_what_a_command_changes_outside_of_its_directory_is_named(tmp_path: Path) -> None:
    script, other = tmp_path / "elsewhere.py", tmp_path / "other"
    script.write_text(ELSEWHERE)
    other.mkdir()
    (other / "kept").touch()
    words = (sys.executable, str(script), "{dir}", str(other))
    found, said = attempted(tmp_path, *words, most=12)
    (told,) = [one for one in found.not_judged if one.startswith("what it changes outside")]
    assert f": 3 in {other}/runs/a, 1 in {other};" in told
    assert "every start finds that as the one before has left it" in told
    # The temporary file is moved to another mount, so it is copied there.
    assert any("1 torn" in line for line in said)


SECOND_FAILS = """\
import os, sys, time
from pathlib import Path
root, rank = Path(sys.argv[1]), os.environ["RANK"]
root.mkdir(exist_ok=True)
if (root / "state-1").exists():
    if rank == "1":
        sys.exit("the cause")
    time.sleep(60)
if rank == "1":
    (root / "ready").touch()
else:
    until = time.monotonic() + 60
    while not (root / "ready").exists() and time.monotonic() < until:
        time.sleep(0.005)
    (root / "state-1").write_text("1")
"""


def test_the_rank_that_failed_first_is_heard(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SECOND_FAILS)
    found, said = attempted(tmp_path, sys.executable, str(script), "{dir}", ranks=2, most=3)
    failed = [one.text for one in found.tried if one.outcome == "HARD_FAIL"]
    assert failed
    assert set(failed) == {"the cause"}
    assert any("ranks: 2" in line for line in said)


TWO = """\
import os, sys
from pathlib import Path
from subprocess import Popen
root, rank = Path(sys.argv[1]), os.environ.get("RANK")
if rank is None:
    ranks = [Popen([sys.executable, *sys.argv], env={**os.environ, "RANK": one}) for one in "01"]
    sys.exit(any([one.wait() for one in ranks]))
root.mkdir(exist_ok=True)
(root / f"new-{rank}").write_text("1")
(root / f"new-{rank}").rename(root / f"state-{rank}")
"""


def test_one_of_the_ranks_of_an_executed_launcher_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    words = (sys.executable, str(script), "{dir}")
    found, said = attempted(tmp_path, *words, cold=True, most=10, result=("state-*",))
    assert any(line.endswith("ranks: 2") for line in said)
    assert is_green(found), describe(found)
    struck = [one.setting.text for one in found.tried if one.setting.kind == "fault"]
    for rank in (0, 1):
        assert any(one.startswith(f"rank {rank} is killed") for one in struck), struck


def test_a_shell_script_is_executed_at_each_start(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text(
        'mkdir -p $1; echo "step 1 of 1"; echo whole > $1/new; mv $1/new $1/state-1\n'
    )
    found, said = attempted(tmp_path, "sh", str(script), "{dir}", most=8)
    assert any(line.startswith("executed anew at each start: ") for line in said)
    assert found.tried
    assert is_green(found), describe(found)
    assert found.from_states == 0, "what it redirects is not seen"
    assert any("{dir}/state-1 is seen" in one for one in (found.not_judged))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("no-such-program", "{dir}"), "there is no program no-such-program"),
        (("true",), "write {dir} for the directory"),
        (("false", "{dir}"), "fails by itself, with status 1"),
        (("true", "{dir}"), "leaves nothing in"),
        ((), "there is no command"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_a_sentence(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    with pytest.raises(CommandError, match=says):
        attempted(tmp_path, *words)
