"""A training command as its user types it."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.jobs.command.program import Program, executed
from harness.words import DIRECTORY_WORD

_BELOW = re.compile(re.escape(DIRECTORY_WORD) + r"/([^\s'\",;:]+)")


class CommandError(Exception):
    """The command cannot be tested; the text says why, and what to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The words of a command, and where they are run.

    Raises:
        CommandError: There is no such program, or the words do not contain `{dir}`.
    """

    words: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    ranks: int = 1
    """Processes to start of it; one if the command has a launcher of its own."""
    resume: tuple[str, ...] = ()
    """The words of a start that finds a checkpoint, if they are others."""

    def __post_init__(self) -> None:
        if not self.words:
            raise CommandError("there is no command: write it after `--`")
        if self.ranks < 1:
            raise CommandError(f"a command has at least one rank: `--nproc {self.ranks}` has none")
        for words in (self.words, self.resume) if self.resume else (self.words,):
            if not any(DIRECTORY_WORD in word for word in words):
                raise CommandError(
                    f"the command does not say where its checkpoints go: write {DIRECTORY_WORD} "
                    "for the directory, as in `train.py --out {dir}`"
                )
            if shutil.which(words[0], path=self.environment.get("PATH")) is None:
                raise CommandError(f"there is no program {words[0]}: {self._hint(words[0])}")

    @property
    def needs(self) -> tuple[str, ...]:
        """The names below the directory that only the words of `resume` have."""
        other = " ".join(word for word in self.resume if word not in self.words)
        return tuple(_BELOW.findall(other))

    def _hint(self, name: str) -> str:
        if name.endswith(".py"):
            return f"is it `python {name}`?"
        if (self.cwd / name).is_file():
            return f"the file may not be executed; is it `sh {name}`?"
        return "is it in the PATH?"

    def filled(self, directory: Path, *, resumes: bool = False) -> tuple[str, ...]:
        """Returns the words of a first start, or of one that resumes, with the directory in its
        place."""
        words = self.resume if resumes else self.words
        return tuple(word.replace(DIRECTORY_WORD, str(directory)) for word in words)

    def executed(self, directory: Path, *, resumes: bool = False) -> tuple[Program, ...]:
        """Returns the ranks of the command as it is executed, with its launcher if it has one."""
        words = self.filled(directory, resumes=resumes)
        return tuple(
            executed(words, cwd=str(self.cwd), environment=self.environment_of(rank))
            for rank in range(self.ranks)
        )

    def environment_of(self, rank: int) -> Mapping[str, str]:
        """Returns the environment of a rank, with the variables that torchrun sets if there are
        several."""
        if self.ranks == 1:
            return self.environment
        usual = {"OMP_NUM_THREADS": "1"}
        return {
            **usual,
            **self.environment,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.ranks),
            "LOCAL_WORLD_SIZE": str(self.ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
        }


def resume_words(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Returns the words of a start that resumes: options are added to those of the first start.

    Raises CommandError if the text has a quotation without an end.
    """
    try:
        found = tuple(shlex.split(text))
    except ValueError as error:
        raise CommandError(f"`--resume` cannot be divided into words: {error}") from None
    return (*words, *found) if text.lstrip().startswith("-") else found
