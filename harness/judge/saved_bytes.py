"""Compares what every published checkpoint holds with the state at the moment of its save.

Each rank records digests of its state after each step, and a save follows the record of its step
before anything changes. So every tensor in a checkpoint of step S must be equal to one that some
rank held then. It need not be resumed from: the bytes of files that are long deleted are known.

An implementation may save under other names, in another type, in other pieces, or not at all. So
bytes that are unknown mean nothing by themselves. What is accused are the bytes of another step: of
any step if the name in the checkpoint ends with the one of the state, else of a later step, if
their elements are not all alike. Bytes of no step at all are accused if the same piece of the same
name was equal to a state in another checkpoint of the same arrangement of ranks. Numbers that the
loop passes to a save are compared by name alone. Random generators have no such name: a data loader
may draw when a save asks for its state, and may keep the state with which its epoch began.

A checkpoint is published once `latest` names it, or once it is whole in a layout without a pointer.
Not compared is what an operator or a power cut has left, and a step that no rank recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from harness.evidence.evidence import Evidence
from harness.evidence.record import Record, Resumed, Stepped, plain_name
from harness.judge.history import FoundCheckpoint, History, Moment
from harness.judge.verdict import Finding
from harness.layouts.values import Value, values_of
from harness.world import World

Names = set[str]


@dataclass(slots=True)
class KnownStates:
    """The states of all ranks after each step: names by text, which are digests and numbers."""

    at: dict[int, dict[str, Names]] = field(default_factory=dict)
    complete: set[int] = field(default_factory=set)
    """The steps that every rank of a run has recorded."""
    names: Names = field(default_factory=set)

    def add(self, event_logs: tuple[tuple[Record, ...], ...]) -> None:
        """Note what the ranks of one run recorded."""
        counts: Counter[int] = Counter()
        for event_log in event_logs:
            counts.update({self._note(one) for one in event_log if isinstance(one, _STATES)})
        self.complete |= {step for step, count in counts.items() if count == len(event_logs)}

    def _note(self, record: Resumed | Stepped) -> int:
        step, state = record.step or 0, record.state
        known = self.at.setdefault(step, {})
        random = {f"rng.{name}": text for name, text in state.rng.items()}
        numbers = {**record.beside, **dict(_numbers(state.groups))}
        named = (state.params, state.moments, numbers)
        for held in (*named, random):
            for name, text in held.items():
                known.setdefault(text, set()).add(name)
        self.names.update(*named)
        return step

    def named(self, value: Value) -> str | None:
        """Returns the longest name of a state with which the name of a value ends."""
        parts = plain_name(value.name).split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self.names), None)

    def origins(self, value: Value, step: int) -> set[int]:
        """Returns the other steps whose state the value is, if that says that it was not copied."""
        name, is_certain = self.named(value), value.is_tensor and not value.is_plain
        found = {
            other: names for other, known in self.at.items() if (names := known.get(value.text))
        }
        return {
            other
            for other, names in found.items()
            if other != step and (name in names or (is_certain and other > step))
        }


_STATES = (Resumed, Stepped)


def _numbers(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the settings that are numbers, as checkpoints are read."""
    for name, text in settings.items():
        with suppress(ValueError):
            yield name, float(text).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCheckpoint:
    """A checkpoint as it was when it was published."""

    moment: Moment
    name: str
    found: FoundCheckpoint
    values: tuple[Value, ...]


def published(history: History) -> Iterator[PublishedCheckpoint]:
    """Yields every version of a checkpoint that the job published, when it was first seen."""
    seen: set[tuple[int, int]] = set()
    for moment in history.moments:
        is_foreign = moment.operator or moment.by_cut
        marked = moment.marks.damaged.keys() | moment.marks.foreign.keys()
        for name, found in moment.live.whole().items():
            if not is_foreign and not _is_published(history, moment, name):
                continue
            key = (found.identity, found.version)
            if key not in seen and not is_foreign and found.identity not in marked:
                values = tuple(values_of(found.files))
                yield PublishedCheckpoint(moment=moment, name=name, found=found, values=values)
            seen.add(key)


def _is_published(history: History, moment: Moment, name: str) -> bool:
    latest = moment.live.latest
    return history.layout.pointer is None or (latest.state == "checkpoint" and latest.name == name)


@dataclass(slots=True)
class SecondReading:
    """The result of a comparison; `equal` and `unknown` count values."""

    findings: list[Finding] = field(default_factory=list)
    equal: int = 0
    unknown: int = 0

    def not_judged(self) -> Iterator[str]:
        """Yields what was there and could not be compared."""
        if self.unknown:
            yield f"{self.unknown} tensors in checkpoints that no rank holds in this form"


def read_again(evidence: Evidence, history: History) -> SecondReading:
    """Compares the values of every published checkpoint with the states that ranks recorded."""
    states, runs = KnownStates(), 0
    result = SecondReading()
    rest: list[tuple[PublishedCheckpoint, World, list[Value]]] = []
    usual: set[tuple[World, str]] = set()
    for one in published(history):
        while runs <= one.moment.run:
            states.add(evidence.runs[runs].event_logs)
            states.add(evidence.runs[runs].second)
            runs += 1
        world = evidence.plan.workload_of(one.moment.run).world
        compared = _compare(one, states)
        usual |= {(world, value.place) for value in compared.equal}
        result.equal += len(compared.equal)
        if compared.other:
            result.findings.append(_finding(one, compared))
        elif one.found.step in states.complete:
            tensors = [value for value in compared.unknown if value.is_tensor]
            rest.append((one, world, tensors))
    for one, world, tensors in rest:
        changed = [v for v in tensors if states.named(v) and (world, v.place) in usual]
        result.unknown += len(tensors) - len(changed)
        if changed:
            result.findings.append(_finding(one, _Compared(unknown=changed)))
    return result


@dataclass(slots=True)
class _Compared:
    """The values of a checkpoint: equal to its state, to that of another step, or to none."""

    equal: list[Value] = field(default_factory=list)
    other: list[tuple[Value, set[int]]] = field(default_factory=list)
    unknown: list[Value] = field(default_factory=list)


def _compare(one: PublishedCheckpoint, states: KnownStates) -> _Compared:
    compared, step = _Compared(), one.found.step
    state = states.at.get(step)
    if state is None:
        return compared
    for value in one.values:
        known = state.get(value.text, set())
        if known and (value.is_tensor or states.named(value) in known):
            compared.equal.append(value)
        elif origins := states.origins(value, step):
            compared.other.append((value, origins))
        else:
            compared.unknown.append(value)
    return compared


def _finding(one: PublishedCheckpoint, compared: _Compared) -> Finding:
    votes = Counter(step for _, steps in compared.other for step in steps)
    # A value can be the same at several steps: most likely it is of the step of most others.
    chosen = [max(steps, key=lambda step: (votes[step], step)) for _, steps in compared.other]
    by_step = Counter(chosen)
    parts = [f"{count} of step {step}" for step, count in sorted(by_step.items())]
    if not compared.other:
        parts = [f"{len(compared.unknown)} of no step that any rank trained"]
    first = compared.other[0][0] if compared.other else compared.unknown[0]
    detail = (
        f"run {one.moment.run}: {one.name} was published with other values than those of step "
        f"{one.found.step} at its save: {', '.join(parts)}; the first is {first.name}"
    )
    return Finding(detail=detail, operation=(one.moment.run, one.moment.index))
