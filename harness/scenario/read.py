"""Reads scenarios: a file becomes checked `Scenario`s, or an error that lists every mistake.

text -source-> values and lines -expand-> one or several -schema, possible-> Scenario
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.scenario.devices import count_gpus
from harness.scenario.errors import Problem, ScenarioError
from harness.scenario.expand import MATRIX, expand
from harness.scenario.explain import explain
from harness.scenario.possible import find_impossible
from harness.scenario.schema import Scenario
from harness.scenario.source import Source, read_source


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioFile:
    """A scenario, and the source that it was read from."""

    source: Source
    scenario: Scenario


def read_file(
    path: Path, *, shown: str | None = None, gpus: int | None = None, device: str = "auto"
) -> dict[str, ScenarioFile | ScenarioError]:
    """Reads the scenarios of a file by their labels, each complete or with its mistakes.

    A file without a matrix has one, with the label "". `shown` names the file in messages. `gpus`
    is the number of GPUs to assume, by default those of this machine. `device` decides for the
    scenarios that leave theirs open. Raises ScenarioError if the mistakes concern the whole file.
    """
    here = count_gpus() if gpus is None else gpus
    found: dict[str, ScenarioFile | ScenarioError] = {}
    for label, expanded in expand(read_source(path, shown=shown)).items():
        source = _decide_device(expanded, device)
        try:
            found[label] = ScenarioFile(source=source, scenario=check_source(source, gpus=here))
        except ScenarioError as error:
            found[label] = error
    first, *others = found.values()
    if isinstance(first, ScenarioError) and all(str(other) == str(first) for other in others):
        raise first
    return found


def _decide_device(source: Source, device: str) -> Source:
    """Decides it in the source, so that a failure's file names the device, too."""
    if device == "auto" or source.data.get("device", "auto") != "auto":
        return source
    return replace(source, data={**source.data, "device": device})


def read_scenario(path: Path, *, shown: str | None = None, gpus: int | None = None) -> Scenario:
    """Reads the only scenario of a file without a matrix. Raises ScenarioError."""
    first, *others = read_file(path, shown=shown, gpus=gpus).values()
    if others:
        text = f"expands to {len(others) + 1} scenarios; only one is possible here"
        problem = Problem(line=None, place=(MATRIX,), text=text)
        raise ScenarioError(shown or str(path), [problem])
    if isinstance(first, ScenarioError):
        raise first
    return first.scenario


def check_source(source: Source, *, gpus: int) -> Scenario:
    """Returns the scenario that a source spells out. Raises ScenarioError."""
    try:
        scenario = Scenario.model_validate(source.data)
    except ValidationError as error:
        raise ScenarioError(source.path, explain(source, error)) from None
    problems = [
        Problem(line=source.line_of(place), place=place, text=text)
        for place, text in find_impossible(scenario, gpus=gpus)
    ]
    if problems:
        raise ScenarioError(source.path, problems)
    return scenario


def json_schema() -> dict[str, Any]:
    """Returns the language as JSON Schema, for editors that complete and check scenario files."""
    schema = Scenario.model_json_schema()
    schema["properties"][MATRIX] = {
        "type": "object",
        "description": "dotted settings, each with the values to combine",
        "additionalProperties": {"type": "array", "minItems": 1},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
