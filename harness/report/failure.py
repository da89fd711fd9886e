"""A failure as a scenario of its own: the file that replays it, with what happened at its head."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from harness.judge.judge import Judgement
from harness.plan.model import Implementation
from harness.scenario.schema import Scenario, kind_of
from harness.scenario.source import Source

_WIDTH = 100
# A short mapping is read as one thing: `{rank: 1}`, `{until_step: 8}`.
_SHORT = 80


def failure_text(
    scenario: Scenario, judgement: Judgement, implementation: Implementation | None = None
) -> str:
    """The text of a failure file: a scenario without its defaults, under a comment."""
    head = [f"# {judgement.outcome}", *_sentences(judgement)]
    if implementation is not None and implementation != Implementation():
        place = f" in {implementation.path}" if implementation.path else ""
        head.append(f"# implementation: {implementation.name}{place}")
    return "\n".join([*head, scenario_text(scenario)])


def failure_name(scenario: Scenario) -> str:
    """The file name: the same scenario has the same one, whatever it came to."""
    digest = hashlib.blake2b(scenario_text(scenario).encode(), digest_size=4).hexdigest()
    return f"{_slug(scenario.name)}-{digest}.yaml"


def scenario_text(scenario: Scenario) -> str:
    """A scenario as YAML, without what is default, in the order of the schema."""
    values = scenario.model_dump(mode="json", exclude_defaults=True)
    for run, parsed in zip(values["runs"], scenario.runs, strict=True):
        if parsed.world is not None:
            # `world: {}` would say the same, but not to a reader.
            run["world"] = parsed.world.model_dump()
        for fault, struck in zip(run.get("faults", []), parsed.faults, strict=True):
            kind = kind_of(struck)
            # `kill: {}` would say the same, but not to a reader.
            whole = getattr(struck, kind).model_dump(mode="json")
            fault[kind] = fault[kind] or dict([next(iter(whole.items()))])
    return "".join(f"{_entry(key, value)}\n" for key, value in values.items())


def write_failure(
    folder: Path,
    source: Source,
    judgement: Judgement,
    implementation: Implementation | None = None,
) -> Path:
    """Write the failure file of the scenario in `source` into `folder`, and say where it is."""
    scenario = Scenario.model_validate(source.data)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / failure_name(scenario)
    path.write_text(failure_text(scenario, judgement, implementation), encoding="utf-8")
    return path


def _sentences(judgement: Judgement) -> list[str]:
    told = [f"{one.name}: {one.details[0]}" for one in judgement.guards if not one.passed]
    for verdict in judgement.verdicts:
        if verdict.state != "holds":
            told.append(f"{verdict.property} is {verdict.state}: {verdict.sentence}")
            told += verdict.details[:2]
    # One line of the comment for each line of text, so that none escapes it.
    return [f"# {line}"[:160] for text in told for line in text.splitlines()]


def _entry(key: str, value: Any) -> str:
    """One key of the top level: on one line where that is short, else indented below it."""
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
    """A value on one line."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=100_000, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "scenario"
