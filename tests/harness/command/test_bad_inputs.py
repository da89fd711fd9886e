"""Commands that cannot be tested are refused in a sentence; odd ones that can be are not accused.

Nothing of them is left running.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.__main__ import BAD_INPUT, main
from harness.command.table import describe, is_green
from harness.command.trying import CommandReport, CommandTest, TryOptions
from harness.run.command.command import Command, CommandError
from harness.run.support import missing_mounts

pytestmark = [
    pytest.mark.skipif(missing_mounts() is not None, reason=str(missing_mounts())),
    pytest.mark.timeout(120),
]

LOOP = """\
import os, shutil, signal, socket, subprocess, sys, time
from pathlib import Path
root = Path(sys.argv[1])
file, resumes = root / "state", True

def save(step):
    with open(root / "new", "w") as new:
        new.write(str(step))
        new.flush()
        os.fsync(new.fileno())
    (root / "new").rename(file)

def in_the_background(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)
    os.wait()
{begin}
root.mkdir(exist_ok=True)
before = int(file.read_text()) if resumes and file.exists() else 0
for step in range(before + 1, 5):
    print(f"step {{step}} of 4", flush=True)
    save(step)
{end}
"""


def attempted(folder: Path, begin: str, end: str = "", **options: object) -> CommandReport:
    script = folder / "train.py"
    script.write_text(LOOP.format(begin=begin, end=end))
    words = (sys.executable, str(script), "{dir}")
    command = Command(words=words, cwd=folder, environment=dict(os.environ))
    (folder / "attempt").mkdir()
    asked = TryOptions(command=command, **({"most": 4} | options))  # type: ignore[arg-type]
    try:
        test = CommandTest(asked, folder / "attempt", lambda _: None, shown=folder / "shown")
        return test.run()
    finally:
        assert running(script) == []


def running(script: Path) -> list[str]:
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = one.read_bytes()
        except OSError:
            continue
        if os.fsencode(script) in line:
            found.append(line.decode())
    return found


REFUSED = {
    "never ends": ("time.sleep(600)", "", "did not end within 2 s: give it fewer steps"),
    "asks for input": ("input('name? ')", "", "status 1: EOFError.* It asks for input"),
    "needs a network": (
        "socket.create_connection(('127.0.0.1', 1))",
        "",
        "Connection refused It asks for something on a network",
    ),
    "saves nothing": ("resumes, save = False, print", "", "leaves nothing in its directory: is"),
    "removes its directory at its end": (
        "",
        "shutil.rmtree(root)",
        "is the directory still there at its end",
    ),
    "removes its directory when it begins": (
        "shutil.rmtree(root, ignore_errors=True)",
        "",
        r"resumes nothing: all of 4 starts made step 1 again",
    ),
    "moves a file in from a folder beside its directory": (
        "",
        "Path(f'{root}.new').write_text('1')\nos.rename(f'{root}.new', root / 'more')",
        "it moves files between {dir} and .*, which is not watched: give it a place",
    ),
    "resumes nothing": ("resumes = False", "", "resumes nothing: all of 4 starts"),
    "writes through a mapping": (
        "",
        "import mmap\nwith open(root / 'm', 'w+b') as m:\n"
        "    m.truncate(4096)\n    mmap.mmap(m.fileno(), 4096)[:1] = b'x'",
        r"writes to m through a shared mapping \(mmap\)",
    ),
    "works in the background": (
        "in_the_background(lambda: time.sleep(600))\nsys.exit()",
        "",
        "leaves nothing in its directory, but it leaves process .*: it must go on until",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_command_that_cannot_be_tested_is_refused(tmp_path: Path, name: str) -> None:
    begin, end, says = REFUSED[name]
    limit_s = 2.0 if name == "never ends" else None
    with pytest.raises(CommandError, match=says):
        attempted(tmp_path, begin, end, limit_s=limit_s)


JUDGED = {
    "changes its working directory": ("os.chdir('/')", ""),
    "ignores SIGTERM": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ""),
    "prints megabytes": ("for _ in range(10): print('x' * (1 << 20))", ""),
    "saves in a child": (
        "def save(step):\n"
        "    text = f\"import os, pathlib; pathlib.Path('{root}/new').write_text('{step}'); \"\n"
        "    text += f\"os.sync(); os.rename('{root}/new', '{file}')\"\n"
        "    subprocess.run([sys.executable, '-S', '-c', text], check=True)",
        "",
    ),
    "is another when it is forked": ("assert sys.orig_argv[1] == sys.argv[0]", ""),
}


@pytest.mark.parametrize("name", JUDGED)
def test_an_odd_command_is_judged_as_any_other(tmp_path: Path, name: str) -> None:
    found = attempted(tmp_path, *JUDGED[name])
    assert is_green(found), describe(found)
    assert found.from_states == 4
    assert found.not_judged == ()


def test_a_process_that_every_start_leaves_is_not_accused(tmp_path: Path) -> None:
    found = attempted(tmp_path, "", "in_the_background(lambda: time.sleep(600))", most=2)
    assert is_green(found), describe(found)
    assert found.not_judged[0].startswith("processes that outlive it: the uninterrupted run leaves")


def test_a_command_that_is_refused_leaves_nothing_on_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["try", "--", "sh", "-c", "echo no >&2; exit 3", "{dir}"]) == BAD_INPUT
    assert "the command fails by itself, with status 3: no\n" in capsys.readouterr().err
    assert not list(Path("/dev/shm").glob(f"kempnerforge-harness-*-{os.getpid()}-*"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("expression", "says"), [("step (", "no regular expression"), (r"step \d+", "finds no number")]
)
def test_a_bad_expression_is_refused(tmp_path: Path, expression: str, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        attempted(tmp_path, "", step_line=expression)
