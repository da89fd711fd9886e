"""Expands `matrix:` into several scenarios: every combination of the values that it lists.

    matrix:
      world: [{dp_shard: 2}, {pp: 2}]
      checkpoint.async_mode: [disabled, async]

A key is the dotted path of a setting; a number in it is an index into a list, from 0.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

from harness.part import Place
from harness.scenario.errors import Problem, ScenarioError
from harness.scenario.source import Source

MATRIX = "matrix"

MOST_SCENARIOS = 256
"""A kill-and-resume scenario takes 1 to 2 s; a file should not fill the whole default suite."""


def expand(source: Source) -> dict[str, Source]:
    """Returns a file's scenarios by labels that name the chosen values. Raises ScenarioError."""
    if MATRIX not in source.data:
        return {"": source}
    axes = _axes(source)
    if (number := prod(len(values) for values in axes.values())) > MOST_SCENARIOS:
        found = f"expands to {number} scenarios; possible: at most {MOST_SCENARIOS}"
        raise _failure(source, (MATRIX,), found)
    chosen = [
        dict(zip(axes, positions, strict=True))
        for positions in itertools.product(*(range(len(values)) for values in axes.values()))
    ]
    labels = _labels(axes, chosen)
    return {
        label: _substitute(source, axes, choice, label)
        for label, choice in zip(labels, chosen, strict=True)
    }


def _axes(source: Source) -> Mapping[str, tuple[Any, ...]]:
    axes = source.data[MATRIX]
    if not isinstance(axes, dict) or not axes:
        example = "{checkpoint.async_mode: [disabled, async]}"
        raise _failure(
            source, (MATRIX,), f"must be a mapping of settings to lists, such as {example}"
        )
    for key, values in axes.items():
        if key in ("name", "runs", MATRIX):
            raise _failure(source, (MATRIX, key), "cannot vary: write another file")
        if not isinstance(values, tuple) or not values:
            raise _failure(source, (MATRIX, str(key)), "must be a list of at least one value")
    return {str(key): values for key, values in axes.items()}


def _labels(axes: Mapping[str, tuple[Any, ...]], chosen: list[dict[str, int]]) -> list[str]:
    """Returns a short text for each choice, numbered if the values alone are ambiguous."""
    labels = [
        "-".join(_label(axes[key][position]) for key, position in choice.items())
        for choice in chosen
    ]
    if len(set(labels)) < len(labels):
        return [f"{number}-{label}" for number, label in enumerate(labels, 1)]
    return labels


def _label(value: Any) -> str:
    if isinstance(value, dict):
        return "_".join(f"{key}{_label(inner)}" for key, inner in value.items()) or "default"
    if isinstance(value, tuple):
        return "_".join(_label(inner) for inner in value) or "none"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    # Labels are part of test ids, in which `::` and `[` have meanings.
    return re.sub(r"[^\w.+-]+", "_", str(value))


def _substitute(
    source: Source, axes: Mapping[str, tuple[Any, ...]], choice: dict[str, int], label: str
) -> Source:
    data = {key: value for key, value in source.data.items() if key != MATRIX}
    lines = {place: line for place, line in source.lines.items() if place[:1] != (MATRIX,)}
    for key, position in choice.items():
        place = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        if place in lines:
            text = f"{key} is also set on line {lines[place]}"
            raise _failure(source, (MATRIX, key), text)
        data = _put(source, key, data, place, axes[key][position])
        origin = (MATRIX, key, position)
        for known, line in source.lines.items():
            if known[:3] == origin:
                lines[(*place, *known[3:])] = line
    if isinstance(data.get("name"), str):
        data["name"] = f"{data['name']} [{label}]"
    return replace(source, data=data, lines=MappingProxyType(lines))


def _put(source: Source, key: str, data: Any, place: Place, value: Any) -> Any:
    """Returns `data` with a value at a place; creates what surrounds it if the file has nothing."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    if isinstance(data, dict):
        return {**data, first: _put(source, key, data.get(first, {}), rest, value)}
    if isinstance(data, tuple) and isinstance(first, int) and first < len(data):
        changed = _put(source, key, data[first], rest, value)
        return (*data[:first], changed, *data[first + 1 :])
    raise _failure(source, (MATRIX, key), f"the file has no place {key}")


def _failure(source: Source, place: Place, text: str) -> ScenarioError:
    return ScenarioError(source.path, [Problem(line=source.line_of(place), place=place, text=text)])
