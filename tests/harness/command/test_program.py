"""What a command line starts, and what can be forked instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.jobs.command.program import NotForkableError, Program, parse_program, read_program
from harness.run.command.learning import Observed


def parsed(*line: str, **environment: str) -> Program:
    return parse_program(line, cwd="/work", environment=environment)


def test_a_script_has_its_arguments() -> None:
    found = parsed("/usr/bin/python3.11", "-u", "train.py", "--out", "x", "-m")
    assert (found.script, found.module, found.arguments) == ("train.py", None, ("--out", "x", "-m"))
    assert found.interpreter == "/usr/bin/python3.11"


def test_a_module_has_its_arguments() -> None:
    found = parsed("python", "-m", "trainer.main", "--steps", "3")
    assert (found.script, found.module) == (None, "trainer.main")
    assert found.arguments == ("--steps", "3")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("bash", "train.sh"), "bash is not a Python interpreter"),
        (("python", "-c", "print()"), "has the option -c"),
        (("python", "-O", "train.py"), "has the option -O"),
        (("python", "-X", "dev", "train.py"), "has the option -X"),
        (("python", "-u"), "names no script"),
        (("python", "-m"), "names no script"),
        ((), "the process is not a Python interpreter"),
    ],
)
def test_what_cannot_be_forked_says_why(line: tuple[str, ...], says: str) -> None:
    with pytest.raises(NotForkableError, match=says):
        parsed(*line)


def test_a_living_process_says_how_it_was_started(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text("print('ready', flush=True); input()")
    command = [sys.executable, "-u", str(script), "x"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = read_program(process.pid)
        process.communicate(b"\n")
    assert (found.script, found.arguments, found.cwd) == (str(script), ("x",), str(tmp_path))
    assert found.environment["PATH"] == os.environ["PATH"]


def observed(**programs: tuple[int, int, Program]) -> Observed:
    found = Observed()
    for process, parent, program in programs.values():
        found.programs[process], found.parents[process] = program, parent
    return found


LAUNCHER = parsed("python", "-m", "torch.distributed.run")
FIRST = parsed("python", "-u", "train.py", RANK="0")
SECOND = parsed("python", "-u", "train.py", RANK="1")


def test_ranks_are_the_first_processes_with_a_number() -> None:
    found = observed(
        launcher=(10, 1, LAUNCHER),
        second=(12, 10, SECOND),
        first=(11, 10, FIRST),
        loader=(13, 11, FIRST),
    )
    assert found.ranks() == (FIRST, SECOND)


def test_without_a_number_the_first_program_is_the_only_rank() -> None:
    script = parsed("python", "train.py")
    worker = parsed("python", "-m", "worker")
    assert observed(script=(11, 10, script), worker=(12, 11, worker)).ranks() == (script,)


def test_ranks_that_were_not_all_seen_cannot_be_forked() -> None:
    with pytest.raises(NotForkableError, match="not all seen"):
        observed(second=(12, 10, SECOND)).ranks()


def test_several_programs_without_numbers_cannot_be_forked() -> None:
    one, other = parsed("python", "train.py"), parsed("python", "evaluate.py")
    with pytest.raises(NotForkableError, match="not all seen"):
        observed(one=(11, 10, one), other=(12, 10, other)).ranks()


def test_a_command_without_python_says_what_it_is() -> None:
    found = Observed()
    found.obstacles.append("bash is not a Python interpreter")
    with pytest.raises(NotForkableError, match="bash is not"):
        found.ranks()
