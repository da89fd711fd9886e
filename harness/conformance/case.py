"""A conformance case: a training script, its command, and the violations that are known of it.

Each is a YAML file beside its script. A known violation has been checked by hand without relying on
the harness; `checked` says how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.command.outcome import Kind
from harness.judge.outcome import Outcome


class ConformanceError(Exception):
    """The cases cannot be read or run; the text says why, and what to do."""


def _compiled(text: str) -> str:
    re.compile(text)
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnownViolation(_Strict):
    """A violation that was checked by hand, and the outcomes that are instances of it."""

    id: str
    outcome: Outcome
    text: Annotated[str, AfterValidator(_compiled)] = ""
    """A regular expression for the sentence of an instance."""
    by: tuple[Kind, ...] = Field(min_length=1)
    """The strikes that make it happen."""
    says: str
    cause: str
    checked: str
    certain: bool = True
    """Whether each run shows it; one that depends on timing can be absent."""

    def covers(self, outcome: Outcome, kind: Kind, text: str) -> bool:
        """Whether an outcome is an instance of it."""
        same = outcome is self.outcome and kind in self.by
        return same and re.search(self.text, text) is not None


class ConformanceCase(_Strict):
    """One script in one way of running it.

    `packages` are the distributions whose versions are shown. `{dir}` stands in the command for the
    directory of checkpoints. `not_run` says why a case cannot run; it has no command then.
    """

    title: str
    packages: tuple[str, ...] = Field(min_length=1)
    script: str = ""
    command: tuple[str, ...] = ()
    ranks: int = 1
    result: tuple[str, ...] = ()
    environment: Mapping[str, str] = Field(default_factory=dict)
    budget_s: float = 60.0
    control: bool = False
    """Whether it is known to be correct, so that any accusation is the harness's mistake."""
    notes: str = ""
    not_run: str = ""
    violations: tuple[KnownViolation, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> ConformanceCase:
        if bool(self.command) == bool(self.not_run):
            raise ValueError("it has either a command or a reason in `not_run`")
        if self.command and self.script not in self.command:
            raise ValueError("its script is a word of its command")
        if self.control and self.violations:
            raise ValueError("a control has no violations")
        ids = [one.id for one in self.violations]
        if len(set(ids)) < len(ids):
            raise ValueError("each violation has an id of its own")
        return self


def read_cases(folder: Path) -> dict[str, ConformanceCase]:
    """Returns the cases of a folder by name, in order. Raises ConformanceError."""
    cases = {path.stem: _read_case(path) for path in sorted(folder.glob("*.yaml"))}
    if not cases:
        raise ConformanceError(f"{folder} has no cases: run this in a checkout of the repository")
    return cases


def _read_case(path: Path) -> ConformanceCase:
    try:
        case = ConformanceCase.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConformanceError(f"{path}: {error}") from None
    if case.script and not (path.parent / case.script).is_file():
        raise ConformanceError(f"{path}: there is no script {case.script} beside it")
    return case
