"""The Python program of one rank of a command, as the kernel lists it: what to run, where, and how.

A launcher of any kind ends in one Python process per rank. Its command line, environment and
working directory say everything that is needed to start the same rank without the launcher.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_HARMLESS = frozenset("uBbqsv")
"""Options that change nothing for a process that is forked: its output is unbuffered anyway,
and what concerns the search path shows in the path that the server has."""


RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""The variables in which launchers tell a process its rank."""


class NotForkableError(Exception):
    """The process cannot be started by a fork; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One rank: a script or a module, its arguments, environment and working directory."""

    arguments: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    interpreter: str
    script: str | None = None
    module: str | None = None
    words: tuple[str, ...] = ()
    """Of a command that is not forked but executed: its words."""

    def changed(self, **fields: Any) -> Program:
        """Returns the program with other values of some fields."""
        return replace(self, **fields)

    def as_request(self) -> dict[str, Any]:
        """Returns the rank's part of a request to a command server."""
        return {
            "arguments": list(self.arguments),
            "cwd": self.cwd,
            "environment": dict(self.environment),
            "words": list(self.words),
            "script": self.script,
            "module": self.module,
        }


def read_program(process: int) -> Program:
    """Returns the program of a living process.

    Raises:
        NotForkableError: It is no Python program, or has options that a fork cannot repeat.
        OSError: The process has ended.
    """
    line = _fields(f"/proc/{process}/cmdline")
    return parse_program(
        line,
        cwd=str(Path(f"/proc/{process}/cwd").readlink()),
        environment=_environment(process),
    )


def parse_program(line: Sequence[str], *, cwd: str, environment: Mapping[str, str]) -> Program:
    """Returns the program that a command line starts. Raises NotForkableError."""
    if not line or _PYTHON.fullmatch(Path(line[0]).name) is None:
        raise NotForkableError(f"{line[0] if line else 'the process'} is not a Python interpreter")
    place = 1
    while place < len(line) and line[place].startswith("-") and line[place] != "-m":
        letters = line[place][1:]
        if not letters or not set(letters) <= _HARMLESS:
            raise NotForkableError(f"its interpreter has the option {line[place]}")
        place += 1
    is_module = place < len(line) and line[place] == "-m"
    rest = line[place + is_module :]
    if not rest:
        raise NotForkableError("its command line names no script and no module")
    return Program(
        interpreter=line[0],
        script=None if is_module else rest[0],
        module=rest[0] if is_module else None,
        arguments=tuple(rest[1:]),
        cwd=cwd,
        environment=environment,
    )


def executed(words: Sequence[str], *, cwd: str, environment: Mapping[str, str]) -> Program:
    """Returns the program of a command that is executed as it is, with its launcher."""
    return Program(
        interpreter=sys.executable,
        words=tuple(words),
        arguments=(),
        cwd=cwd,
        environment=environment,
    )


def rank_of(environment: Mapping[str, str]) -> int | None:
    """Returns the rank that a launcher wrote into an environment; None if there is none."""
    for name in RANK_VARIABLES:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    return None


def read_rank(process: int) -> int | None:
    """Returns the rank that a process has in its first environment; None if there is none."""
    try:
        return rank_of(_environment(process))
    except OSError:  # it is gone
        return None


def _environment(process: int) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in _fields(f"/proc/{process}/environ"))


def _fields(path: str) -> list[str]:
    return [os.fsdecode(one) for one in Path(path).read_bytes().split(b"\0")[:-1]]
