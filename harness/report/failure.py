"""Writes a failure as a scenario of its own: the file that replays it, headed by what happened."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from harness.faults.registry import AnyFault
from harness.judge.judge import Judgement
from harness.plan.model import Implementation
from harness.report.head import head_lines
from harness.scenario.schema import Scenario
from harness.scenario.source import Source

_WIDTH = 100
# A short mapping is easier to read on one line: `{rank: 1}`, `{until_step: 8}`.
_SHORT = 80


def failure_text(
    scenario: Scenario, judgement: Judgement, implementation: Implementation | None = None
) -> str:
    """Returns the text of a failure file: a scenario without its defaults, under a comment."""
    return "\n".join([*head_lines(judgement, implementation), scenario_text(scenario)])


def failure_name(scenario: Scenario) -> str:
    """Returns the file name, which depends only on the scenario, not on its outcome."""
    digest = hashlib.blake2b(scenario_text(scenario).encode(), digest_size=4).hexdigest()
    return f"{_slug(scenario.name)}-{digest}.yaml"


def scenario_text(scenario: Scenario) -> str:
    """Returns a scenario as YAML, without defaults, in the order of the schema."""
    values = scenario.model_dump(mode="json", exclude_defaults=True)
    for run, parsed in zip(values["runs"], scenario.runs, strict=True):
        if parsed.world is not None:
            # `world: {}` would mean the same as one stage, but not to a reader.
            run["world"] = run["world"] or {"pp": parsed.world.pp}
        if faults := run.pop("faults", []):
            run["faults"] = [_fault(*pair) for pair in zip(faults, parsed.faults, strict=True)]
    return "".join(f"{_entry(key, value)}\n" for key, value in values.items())


def _fault(values: dict[str, Any], parsed: AnyFault) -> dict[str, Any]:
    """Orders the keys so that a fault precedes its point."""
    kind = parsed.word
    # `kill: {}` would mean the same as the first field, but not to a reader.
    whole = getattr(parsed, kind).model_dump(mode="json")
    return {kind: values[kind] or dict([next(iter(whole.items()))]), "at": values["at"]}


def write_failure(
    folder: Path,
    source: Source,
    judgement: Judgement,
    implementation: Implementation | None = None,
    suffix: str = "",
) -> Path:
    """Write the failure file of the scenario in `source` into `folder`; returns its path.

    `suffix` distinguishes it from an earlier, different failure of the same scenario.
    """
    scenario = Scenario.model_validate(source.data)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{failure_name(scenario).removesuffix('.yaml')}{suffix}.yaml"
    path.write_text(failure_text(scenario, judgement, implementation), encoding="utf-8")
    return path


def _entry(key: str, value: Any) -> str:
    """Formats one key of the top level: on one line if that is short, else indented below it."""
    flow = f"{key}: {_flow(value)}"
    if isinstance(value, list) or (isinstance(value, dict) and len(flow) > _WIDTH):
        return f"{key}:\n{_block(value, '  ')}"
    return flow


def _block(value: Any, indent: str) -> str:
    if isinstance(value, list):
        return "\n".join(_item(item, indent) for item in value)
    return "\n".join(_line(key, item, indent) for key, item in value.items())


def _line(key: str, value: Any, indent: str) -> str:
    flow = _flow(value)
    if not isinstance(value, dict | list) or len(indent) + len(key) + len(flow) + 2 <= _SHORT:
        return f"{indent}{key}: {flow}"
    return f"{indent}{key}:\n{_block(value, indent + '  ')}"


def _item(value: Any, indent: str) -> str:
    flow = _flow(value)
    if not isinstance(value, dict | list) or len(indent) + len(flow) + 2 <= _WIDTH:
        return f"{indent}- {flow}"
    return f"{indent}- {_block(value, indent + '  ').lstrip()}"


def _flow(value: Any) -> str:
    """Formats a value on one line."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=100_000, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "scenario"
