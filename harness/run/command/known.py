"""Findings of the uninterrupted runs of a command, on disk for all workers of a session."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.jobs.command.program import Program
from harness.run.command.results import Reference
from harness.run.command.starting import Resuming
from harness.run.command.steps import StepLine, StepLines

_KNOWN = "command.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCommand:
    """How a command is started, and what it leaves.

    `programs` are those of its `ranks`, or the one of their launcher. `modules` is None if it is
    executed.
    """

    programs: tuple[Program, ...]
    ranks: int
    resuming: Resuming | None
    leaked: tuple[str, ...]
    modules: tuple[str, ...] | None
    reference: Reference
    steps: StepLines | None


def not_judged(
    reference: Reference, steps: StepLines | None, leaked: Sequence[str]
) -> tuple[str, ...]:
    """Returns a sentence for each question about a run that nothing can answer."""
    found = []
    if steps is None:
        found.append(
            "where it resumed: no line of its output has the number of a step; "
            "`--step-line REGEX`, or `step_line` in a scenario, says what to look for"
        )
    if leaked:
        left = ", ".join(leaked)
        found.append(
            f"processes that outlive it: the uninterrupted run leaves some as well: {left}"
        )
    if varies := reference.varies:
        text = f"{', '.join(sorted(varies))}: two uninterrupted runs leave different ones"
        found.append(text)
    found += [
        f"the values in {name}: they cannot be read: {why.strip().splitlines()[-1]}"
        for name, why in reference.unreadable.items()
    ]
    return tuple(found)


def write_known(folder: Path, known: KnownCommand) -> None:
    """Write it into a folder."""
    value = asdict(known)
    value["reference"]["varies"] = sorted(known.reference.varies)
    (folder / _KNOWN).write_text(json.dumps(value), encoding="utf-8")


def read_known(folder: Path) -> KnownCommand:
    """Returns what was written into a folder."""
    value = json.loads((folder / _KNOWN).read_text(encoding="utf-8"))
    return KnownCommand(
        programs=tuple(_read_program(one) for one in value["programs"]),
        ranks=value["ranks"],
        resuming=None if value["resuming"] is None else _read_resuming(value["resuming"]),
        leaked=tuple(value["leaked"]),
        modules=None if value["modules"] is None else tuple(value["modules"]),
        reference=_read_reference(value["reference"]),
        steps=None if value["steps"] is None else _read_steps(value["steps"]),
    )


def _read_program(value: Mapping[str, Any]) -> Program:
    lists = {name: tuple(value[name]) for name in ("arguments", "words")}
    return Program(**{**value, **lists})


def _read_resuming(value: Mapping[str, Any]) -> Resuming:
    programs = tuple(_read_program(one) for one in value["programs"])
    return Resuming(programs=programs, needs=tuple(value["needs"]))


def _read_reference(value: Mapping[str, Any]) -> Reference:
    return Reference(
        patterns=tuple(value["patterns"]),
        digests=value["digests"],
        values=value["values"],
        varies=frozenset(value["varies"]),
    )


def _read_steps(value: Mapping[str, Any]) -> StepLines:
    lines = tuple(StepLine(**one) for one in value["lines"])
    return StepLines(expression=value["expression"], wording=value["wording"], lines=lines)
