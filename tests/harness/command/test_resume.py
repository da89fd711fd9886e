"""A command that resumes with other words than those of its first start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.command.outcome import CommandTrial, Kind, Setting, too_early
from harness.command.table import causes_of, describe, is_green
from harness.command.trying import CommandReport, CommandTest, TryOptions
from harness.judge.outcome import Outcome
from harness.run.command.command import Command, CommandError, resume_words
from harness.run.support import missing_mounts

pytestmark = [
    pytest.mark.skipif(missing_mounts() is not None, reason=str(missing_mounts())),
    pytest.mark.timeout(120),
]

SCRIPT = """\
import os, sys
from pathlib import Path
root, how, rest = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]

def synced(path, text):
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

def renamed(path, text):
    synced(root / "new", text)
    (root / "new").rename(path)
    directory = os.open(root, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)

root.mkdir(exist_ok=True)
before = int((root / Path(rest[1]).read_text()).read_text()) if rest[:1] == ["--from"] else 0
for step in range(before + 1, 4):
    print(f"step {step} of 3", flush=True)
    renamed(root / f"step-{step}", str(step))
    (renamed if how == "renames" else synced)(root / "latest", f"step-{step}")
"""


def attempted(folder: Path, how: str, resume: str, **options: object) -> CommandReport:
    (folder / "train.py").write_text(SCRIPT)
    words = (sys.executable, str(folder / "train.py"), "{dir}", how)
    command = Command(
        words=words,
        cwd=folder,
        environment=dict(os.environ),
        resume=resume_words(words, resume.replace("train.py", str(folder / "train.py"))),
    )
    (folder / "attempt").mkdir()
    said: list[str] = []
    asked = TryOptions(command=command, **options)  # type: ignore[arg-type]
    test = CommandTest(asked, folder / "attempt", said.append, shown=folder / "shown")
    found = test.run()
    assert not any(one.startswith("executed anew") for one in said)
    return found


@pytest.mark.parametrize("cold", [False, True])
def test_a_start_that_finds_a_checkpoint_has_other_words(tmp_path: Path, *, cold: bool) -> None:
    found = attempted(tmp_path, "renames", "--from {dir}/latest", cold=cold, most=16)
    assert is_green(found), describe(found)
    assert {one.resumed for one in found.tried if one.other_words} >= {2, 3}
    assert {one.resumed for one in found.tried if not one.other_words} == {1}, "there is no latest"


def test_a_pointer_that_is_overwritten_in_place_fails_once_there_was_a_checkpoint(
    tmp_path: Path,
) -> None:
    resume = f"{sys.executable} train.py {{dir}} overwrites --from {{dir}}/latest"
    found = attempted(tmp_path, "overwrites", resume, most=100)
    cause = causes_of(found)[0]
    assert cause.outcome == "HARD_FAIL"
    assert cause.first.setting.text.endswith(", open latest")
    early = next(one for one in found.not_judged if "--resume" in one)
    assert early.endswith("there may be no checkpoint yet")
    first = next(one.setting.place for one in found.tried if one.resumed == 2)
    assert cause.first.setting.place > first


@pytest.mark.parametrize(
    ("resume", "says"),
    [
        ("--from {dir}/newest", "names {dir}/newest, which an uninterrupted run does not leave"),
        ("--from {dir}/step-1/x", "names {dir}/step-1/x"),
        (f"{sys.executable} no-such.py {{dir}}", "work from none of 4 states: .*no-such.py"),
        ("--from '{dir}/latest", "No closing quotation"),
        ("python train.py", "write {dir} for the directory"),
        ("no-such-program {dir}", "there is no program no-such-program"),
    ],
)
def test_words_that_cannot_resume_are_refused(tmp_path: Path, resume: str, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        attempted(tmp_path, "renames", resume, most=4)


def trial(kind: Kind, place: int, outcome: Outcome, resumed: int | None = None) -> CommandTrial:
    setting = Setting(kind=kind, place=place, text="")
    return CommandTrial(
        setting=setting, outcome=outcome, text="", resumed=resumed, other_words=True
    )


FAIL, PASS = Outcome.HARD_FAIL, Outcome.PASS


def test_it_is_too_early_until_the_words_work() -> None:
    early = [trial("killed", 2, FAIL), trial("torn", 3, FAIL), trial("power", 4, FAIL)]
    late = [trial("killed", 4, FAIL), trial("torn", 4, FAIL), trial("fault", 6, FAIL)]
    works = [trial("killed", 3, PASS, 2), trial("killed", 5, PASS, 2), trial("killed", 6, PASS, 3)]
    assert too_early([*works, *late, *early]) == early
    assert too_early(late) == late
