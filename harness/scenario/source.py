"""Reads a YAML file as plain values, with the line of every key. Only plain YAML, no objects."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from harness.part import Place
from harness.scenario.errors import Problem, ScenarioError

# An alias repeats everything that it names, so a few nested ones can expand to more values than fit
# in memory. The largest useful scenario so far has some two hundred.
_MOST_VALUES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The contents of a scenario file. Lists are tuples, so that values cannot change."""

    path: str
    """Its name in messages."""
    text: str
    data: Any
    lines: Mapping[Place, int]
    """The line, from 1, of every key and of every entry of a list."""

    def line_of(self, place: Place) -> int | None:
        """Returns the line of a place, or of the nearest place around it that the file has."""
        while place not in self.lines:
            if not place:
                return None
            place = place[:-1]
        return self.lines[place]


def read_source(path: Path, *, shown: str | None = None) -> Source:
    """Reads a file. `shown` is its name in messages. Raises ScenarioError."""
    name = shown if shown is not None else str(path)
    return parse_source(_read_text(path, name), shown=name)


def parse_source(text: str, *, shown: str) -> Source:
    """Parses a text; `shown` names it in messages. Raises ScenarioError."""
    try:
        reader = _Reader(shown, text)
        data = reader.document()
    except yaml.YAMLError as error:
        raise _failure(shown, _line_of_error(error, text), f"not YAML: {_say(error)}") from None
    except RecursionError:
        raise _failure(shown, None, "lists or mappings are nested too deeply") from None
    if reader.problems:
        raise ScenarioError(shown, reader.problems)
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, tuple) else f"the single value {data!r:.60}"
        raise _failure(shown, reader.lines[()], f"a scenario is a mapping, this is {kind}")
    return Source(path=shown, text=text, data=data, lines=MappingProxyType(reader.lines))


def _read_text(path: Path, name: str) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _failure(name, None, f"cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        found = f"not UTF-8: the byte 0x{raw[error.start]:02x} is no character"
        raise _failure(name, line, found) from None


class _Reader:
    """Turns nodes into values, and keeps lines and problems on the way."""

    def __init__(self, path: str, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self._path = path
        self._loader = yaml.SafeLoader(text)
        self._around: list[yaml.Node] = []

    def document(self) -> Any:
        """Returns the file's only document."""
        node = self._loader.get_single_node()
        if node is None:
            raise _failure(self._path, 1, "the file is empty: a scenario needs `name` and `runs`")
        return self._value(node, ())

    def _value(self, node: yaml.Node, place: Place) -> Any:
        """Returns the value of a node; keeps its line unless its key already has one."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if len(self.lines) > _MOST_VALUES:
            raise _failure(
                self._path, None, f"more than {_MOST_VALUES} values once aliases are expanded"
            )
        if any(node is outer for outer in self._around):
            raise _failure(
                self._path, self.lines[place], "an alias refers to a value that contains it"
            )
        self._around.append(node)
        try:
            return self._inner(node, place)
        finally:
            self._around.pop()

    def _inner(self, node: yaml.Node, place: Place) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return tuple(self._value(item, (*place, n)) for n, item in enumerate(node.value))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, place)
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:  # such as the date 2026-02-31
            self._report(node, place, f"{node.value!s:.60} is not a value: {error}")
            return None

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Hashable, Any]:
        own = list(self._own_keys(node, place))
        if len(own) < len(node.value):
            # Puts the mappings behind `<<` in front of the node's own keys, which therefore win.
            self._loader.flatten_mapping(node)
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            inner = (*place, str(key))
            if key in found:
                self._forget(inner)
            self.lines[inner] = key_node.start_mark.line + 1
            found[key] = self._value(value_node, inner)
        return found

    def _own_keys(self, node: yaml.MappingNode, place: Place) -> Iterator[Hashable]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self._key(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                twice = f"the key {key!r} appears twice, first on line {lines[key]}"
                self._report(key_node, place, twice)
            lines.setdefault(key, line)
            yield key

    def _key(self, node: yaml.Node) -> Hashable:
        if not isinstance(node, yaml.ScalarNode):
            line = node.start_mark.line + 1
            raise _failure(self._path, line, "a key is a word, not a list or a mapping")
        key: Hashable = self._scalar(node, ())
        return key

    def _forget(self, place: Place) -> None:
        for known in [known for known in self.lines if known[: len(place)] == place]:
            del self.lines[known]

    def _report(self, node: yaml.Node, place: Place, text: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(line=line, place=place, text=text))


def _failure(path: str, line: int | None, text: str) -> ScenarioError:
    return ScenarioError(path, [Problem(line=line, place=(), text=text)])


def _line_of_error(error: yaml.YAMLError, text: str) -> int | None:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return mark.line + 1 if mark is not None else None
    if isinstance(error, yaml.reader.ReaderError):
        return text[: error.position].count("\n") + 1
    return None


def _say(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem, error.note) if part)
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character U+{error.character:04X} is not allowed"
    return str(error)
