"""A training command of the user's own, instead of the built-in job, in the scenario language.

    job: {command: [python, train.py, --out, "{dir}"], nproc: 2}
    layout: {checkpoints: "checkpoint-{step}", complete: [trainer_state.json]}
    result: ["checkpoint-8/*.safetensors"]
    step_line: 'step (\\d+)'

The command resumes by itself: every run starts it with the same words, unless `resume` or the run's
own `command` has others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from harness.part import Part
from harness.words import DIRECTORY_WORD, STEP_WORD


def _names_the_directory(words: tuple[str, ...]) -> tuple[str, ...]:
    if not any(DIRECTORY_WORD in word for word in words):
        raise ValueError(f"no word contains {DIRECTORY_WORD}, the directory of its checkpoints")
    return words


class CommandJob(Part):
    """A training command as its user types it.

    `{dir}` stands for its checkpoint directory, `{python}` for the interpreter of the harness.
    """

    command: tuple[str, ...] = Field(min_length=1)
    nproc: int = Field(
        1, ge=1, description="processes to start of it; 1 if it has a launcher of its own"
    )
    ranks: int | None = Field(
        None, ge=1, description="ranks that a launcher of its own starts; default: `nproc`"
    )
    start: Literal["warm", "cold"] = Field(
        "warm", description="forked from a process with its imports, or executed at each start"
    )
    probe: bool = Field(
        default=False, description="its script makes the three calls of `harness.probe`"
    )
    resume: tuple[str, ...] | None = Field(
        None, min_length=1, description="the words of a start that finds a checkpoint"
    )
    env: Mapping[str, str] = Field({}, description="variables beside those of the environment")
    cwd: str = Field(".", description="where it runs; below the present directory")

    _command = field_validator("command")(_names_the_directory)

    @field_validator("resume")
    @classmethod
    def _resume(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return words and _names_the_directory(words)

    def __hash__(self) -> int:
        """Hashes the variables, too, which are a mapping."""
        return hash(self.model_dump_json())

    def ranks_of(self, nproc: int | None) -> int:
        """Returns the number of ranks of a run, which can have a number of processes of its own."""
        return nproc or self.ranks or self.nproc


class FilePointer(Part):
    """A file whose text names the newest checkpoint."""

    file: str


class SymlinkPointer(Part):
    """A symlink to the newest checkpoint."""

    symlink: str


class CheckpointNames(Part):
    """The names in a directory of checkpoints, by which these can be judged from outside.

    `*` in `checkpoints` stands for anything but a slash.
    """

    checkpoints: str = Field(
        description="the name of a checkpoint, a folder or a file, with `{step}` for its step"
    )
    complete: tuple[str, ...] = Field(
        (), description="patterns of the files without which a folder is no checkpoint"
    )
    pointer: FilePointer | SymlinkPointer | Literal["highest", "none"] = Field(
        "highest", description="what names the newest checkpoint"
    )

    @field_validator("checkpoints")
    @classmethod
    def _has_one_step(cls, name: str) -> str:
        if name.count(STEP_WORD) != 1:
            raise ValueError(f"{name!r} must contain {STEP_WORD} once")
        if "/" in name:
            raise ValueError(f"{name!r} must be a name in the directory, not a path")
        return name

    @property
    def pointer_name(self) -> str | None:
        """The name of the pointer, if it is a file or a symlink."""
        if isinstance(self.pointer, FilePointer):
            return self.pointer.file
        return self.pointer.symlink if isinstance(self.pointer, SymlinkPointer) else None
