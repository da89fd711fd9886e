"""Learns from one start of a command what its ranks are and what they import.

The command is executed as it is, with its launcher. Meanwhile its processes are read from `/proc`:
the first process of each rank is a Python program, which can be forked later without the launcher.
`PYTHONPROFILEIMPORTTIME` has every interpreter name its imports on its standard error.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.jobs.command.program import (
    NotForkableError,
    Program,
    rank_of,
    read_program,
    read_rank,
)
from harness.run.command.server import SERVER
from harness.run.command.starting import Ended, Starts
from harness.system.clock import descendants
from harness.system.membership import membership

_ASKS_FOR_IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}
_IMPORT = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s*([\w.]+)\s*$", re.MULTILINE)
_LOOK_S = 0.02
_AGENTS_STORE = "TORCHELASTIC_USE_AGENT_STORE"


@dataclass(slots=True)
class Observed:
    """The Python processes of a command, and the ranks of all of them, seen while it runs."""

    programs: dict[int, Program] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    obstacles: list[str] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)

    def look(self, processes: Iterable[int]) -> None:
        """Note the programs of processes; one that has executed another since has that one."""
        for process in processes:
            if (number := read_rank(process)) is not None:
                self.numbers.add(number)
            try:
                program = read_program(process)
                parent = membership(process).parent
            except NotForkableError as error:
                # Until it executed this, it was a fork of a Python program.
                self.programs.pop(process, None)
                if str(error) not in self.obstacles:
                    self.obstacles.append(str(error))
            except OSError:
                continue
            else:
                if program.script != str(SERVER):
                    self.programs[process], self.parents[process] = program, parent

    def ranks(self) -> tuple[Program, ...]:
        """Returns the program of each rank, in the order of the ranks.

        A rank is the first process with its number in the environment, or, if no process has one,
        the first Python program of all. Raises NotForkableError if there is none, or if some rank
        was not seen.
        """
        numbered = {
            process: program
            for process, program in self.programs.items()
            if rank_of(program.environment) is not None
        }
        among = numbered or self.programs
        first = {
            process: program
            for process, program in among.items()
            if self.parents.get(process) not in among
        }
        found = {rank_of(program.environment) or 0: program for program in first.values()}
        if not found:
            raise NotForkableError(
                self.obstacles[-1] if self.obstacles else "it ended before it was seen"
            )
        if sorted(found) != list(range(len(found))) or (not numbered and len(first) > 1):
            raise NotForkableError("its ranks were not all seen, or are not numbered from 0")
        return tuple(found[rank] for rank in range(len(found)))


class _Observer:
    """Looks at the processes below this one, in a thread, while a command runs."""

    def __init__(self, below: int) -> None:
        self.found = Observed()
        self._below, self._over = below, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.found.look(descendants(self._below))


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The findings of one executed run of a command: how it ended, and how its ranks can be forked.

    `ranks` is how many there are, as far as they were seen. `programs` is empty if they cannot be
    forked; `obstacle` says why.
    """

    ended: Ended
    ranks: int
    programs: tuple[Program, ...]
    modules: tuple[str, ...]
    obstacle: str = ""


def learn(starts: Starts, folder: Path, *, limit_s: float) -> Learned:
    """Run an executed command once, and look at it meanwhile."""
    asking = tuple(
        one.changed(environment={**one.environment, **_ASKS_FOR_IMPORTS}) for one in starts.programs
    )
    with _Observer(starts.server.process) as observer:
        ended = Starts(starts.server, asking, starts.shown).run(folder, limit_s=limit_s)
    text = ended.log()
    modules = tuple(dict.fromkeys(_IMPORT.findall(text)))
    kept = (line for line in text.splitlines(keepends=True) if not line.startswith("import time:"))
    ended.log_path().write_text("".join(kept), encoding="utf-8")
    ranks = max(observer.found.numbers, default=0) + 1
    try:
        programs = tuple(_as_started(one) for one in observer.found.ranks())
    except NotForkableError as error:
        return Learned(ended=ended, ranks=ranks, programs=(), modules=(), obstacle=str(error))
    return Learned(ended=ended, ranks=ranks, programs=programs, modules=modules)


def _as_started(program: Program) -> Program:
    """Returns a program without what was added to its environment to learn from it.

    Without torchrun's agent, the ranks keep the store in which they meet themselves.
    """
    kept = {
        key: value for key, value in program.environment.items() if key not in _ASKS_FOR_IMPORTS
    }
    if _AGENTS_STORE in kept:
        kept[_AGENTS_STORE] = "False"
    return program.changed(environment=kept)
