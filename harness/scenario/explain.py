"""Turns pydantic's errors into sentences that teach: place, what was found, what is possible."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.faults.actions import ACTIONS
from harness.faults.registry import FAULTS
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.part import Place
from harness.scenario.errors import Problem, choices
from harness.scenario.expand import MATRIX
from harness.scenario.schema import Scenario
from harness.scenario.source import Source

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def explain(source: Source, error: ValidationError) -> Iterator[Problem]:
    """Yields one problem for each place with errors, however many ways pydantic tried there."""
    places: dict[Place, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        places.setdefault(_place(detail, source.data), []).append(detail)
    for place, details in places.items():
        # For a list that could also be a word, the error inside the list is the one to show.
        if not any(other[: len(place)] == place for other in places if other != place):
            text = _sentence(place, details, source.data)
            yield Problem(line=source.line_of(place), place=place, text=text)


def _place(detail: ErrorDetails, data: Any) -> Place:
    """Returns the keys of the file in an error's location; pydantic inserts names of types."""
    place: Place = ()
    for part in detail["loc"]:
        inside = _get(data, part)
        if inside is not _ABSENT:
            place, data = (*place, part), inside
    if detail["type"] == "missing":
        place = (*place, detail["loc"][-1])
    return place


_ABSENT = object()


def _get(data: Any, part: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(part, _ABSENT)
    if isinstance(data, tuple) and isinstance(part, int) and part < len(data):
        return data[part]
    return _ABSENT


def _sentence(place: Place, details: list[ErrorDetails], data: Any) -> str:
    first = details[0]
    match first["type"]:
        case "missing":
            return f"is missing; expected {_expected(_annotation(place))}"
        case "extra_forbidden":
            return f"unknown key; {choices(place[-1], _known_keys(place[:-1], data))}"
        case "unknown_fault":
            return _unknown(first["input"], "fault", FAULTS, _A_FAULT)
        case "unknown_action":
            return _unknown(first["input"], "action", ACTIONS, _AN_ACTION)
        case "value_error":
            return str(first["ctx"]["error"])
        case "invalid_key":
            return f"the key {first['input']!r} is not text"
        case kind if kind in _WRONG_TYPE:
            return _wrong_value(place, first["input"])
        case _:
            rule = first["msg"].replace("Input should", "it should")
            return f"found {show(first['input'])}: {rule}"


_WRONG_TYPE = {
    "literal_error", "int_type", "int_from_float", "float_type", "string_type", "bool_type",
    "tuple_type", "model_type", "none_required", "dict_type", "model_attributes_type",
}  # fmt: skip


def _wrong_value(place: Place, found: Any) -> str:
    annotation = _annotation(place)
    words = [word for option in _options(annotation) for word in _words(option)]
    if words and isinstance(found, str):
        noun = _noun(place)
        if all(_words(option) or option is type(None) for option in _options(annotation)):
            return f"{found!r} is not {noun}; {choices(found, words)}"
        hint = choices(found, words).partition(" (")
        return f"{found!r} is not {noun}; expected {_expected(annotation)}{hint[1]}{hint[2]}"
    return f"found {show(found)}, expected {_expected(annotation)}"


_A_FAULT = "{kill: {rank: 1}, at: {save: 1, phase: flush}}"
_AN_ACTION = f'{{flip_bit: {{path: "{LAYOUTS[DEFAULT].name_of(4)}/{LAYOUTS[DEFAULT].shards}"}}}}'


def _unknown(found: Any, noun: str, known: tuple[str, ...], example: str) -> str:
    if not isinstance(found, dict):
        return f"found {show(found)}, expected a mapping such as {example}"
    named = [key for key in found if key != "at"]
    article = "an" if noun[0] in "aeiou" else "a"
    if not named:
        return f"names no {noun}; {choices('', known)}"
    return f"{named[0]!r} is not {article} {noun}; {choices(named[0], known)}"


def _noun(place: Place) -> str:
    """`phase` for `at.phase`, `property` for an entry of `properties`, with its article."""
    names = [part for part in place if isinstance(part, str)]
    noun = names[-1]
    if isinstance(place[-1], int):
        noun = noun.removesuffix("ies") + "y" if noun.endswith("ies") else noun.removesuffix("s")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def show(value: Any) -> str:
    """Formats a value of a file, short enough for a sentence."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _expected(annotation: Any) -> str:
    parts = [_expected_one(option) for option in _options(annotation)]
    return " or ".join(dict.fromkeys(parts)) or "something else"


def _expected_one(option: Any) -> str:
    if words := _words(option):
        return " or ".join(repr(word) for word in words)
    if get_origin(option) is tuple:
        return "a list"
    if option is type(None):
        return "nothing"
    if isinstance(option, type) and issubclass(option, BaseModel):
        return f"a mapping with {', '.join(option.model_fields)}"
    return _KINDS.get(option, str(option))


def _known_keys(place: Place, data: Any) -> tuple[str, ...]:
    """Returns the keys that the part at a place can have; of several parts, the likeliest one's."""
    for part in place:
        data = _get(data, part)
    models = [option for option in _options(_annotation(place)) if hasattr(option, "model_fields")]
    likeliest = max(models, key=lambda model: len(model.model_fields.keys() & data.keys()))
    return (*likeliest.model_fields, *(() if place else (MATRIX,)))


def _annotation(place: Place) -> Any:
    """Returns the type that the schema gives to a place, or None if it has no such place."""
    annotation: Any = Scenario
    for part in place:
        annotation = next(_inside(annotation, part), None)
    return annotation


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    for option in _options(annotation):
        if get_origin(option) is tuple and isinstance(part, int):
            yield get_args(option)[0]
        elif isinstance(option, type) and issubclass(option, BaseModel):
            field = option.model_fields.get(str(part))
            if field is not None:
                yield field.annotation


def _options(annotation: Any) -> Iterator[Any]:
    """Yields the members of a union, however deep; one option if there is no choice."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _options(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    elif annotation is not None:
        yield annotation


def _words(option: Any) -> tuple[str, ...]:
    return get_args(option) if get_origin(option) is Literal else ()
