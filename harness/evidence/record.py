"""A rank's own records, one JSON object per line.

The training job writes them, the judges read them. Every record carries its position `index` in the
total order of the run (the number of operations performed before it). The supervisor fills it in
when it reads the line; it is -1 if no supervisor watched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDigest:
    """Digests of everything that a resumed rank must have back, by name.

    `params` and `moments` map global names to digests of this rank's shard; `rng` maps generator
    names (`python`, `numpy`, `torch`, `cuda:0`, ...) to digests of their state.

    `pieces` is filled if a run shards in another way than the others. It maps the names of both to
    this rank's place in the whole and a digest that can be added up: `0,16+8,32 <hex>` begins at
    row 0 and column 16 and has 8 rows of 32. The sum over all pieces, modulo 2^64, is the digest of
    the whole, however it was split.
    """

    params: dict[str, str]
    moments: dict[str, str]
    rng: dict[str, str]
    pieces: dict[str, str] = field(default_factory=dict)


def _as_json(value: object) -> object:
    if not isinstance(value, StateDigest):
        raise TypeError(f"a record cannot hold a {type(value).__name__}")
    return {item.name: getattr(value, item.name) for item in fields(value)}


def keep_word(step: int) -> str:
    """Returns the extra value that the job gives to the save of a step, to recognize it later."""
    return f"kept with step {step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all records."""

    kind: ClassVar[str] = ""
    index: int = -1

    def to_line(self) -> str:
        """Returns one line of JSON, without the newline."""
        # `asdict` would copy every digest of a state: a tenth of the time of a training step.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return json.dumps({"kind": self.kind, **values}, separators=(",", ":"), default=_as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Record):
    """The rank is about to build its job."""

    kind: ClassVar[str] = "started"
    rank: int
    pid: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Record):
    """The decision at start and the state after it. `step` is None for a fresh start.

    `kept` is a word that the job passed to the save as an extra value, and that must come back. So
    must the values of `beside`, which the loop keeps and changes with every step.
    """

    kind: ClassVar[str] = "resumed"
    source: str | None
    step: int | None
    tokens_seen: int
    epoch: int
    state: StateDigest
    frozen: tuple[str, ...]
    kept: str | None = None
    beside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Record):
    """A start that had to be refused raised; `changed` names the state that it changed before.

    Only recorded by runs whose plan says that they are refused; the error is a record of its own.
    """

    kind: ClassVar[str] = "refused"
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped(Record):
    """One finished training step. `loss` and `lr` are `float.hex()`, so that equal means equal.

    `loss` is None on stages that have none. `frozen` names the module aliases whose parameters are
    all frozen; `trained` counts the parameters with a non-zero gradient.
    """

    kind: ClassVar[str] = "stepped"
    step: int
    epoch: int
    loss: str | None
    lr: tuple[str, ...]
    samples: tuple[int, ...]
    frozen: tuple[str, ...]
    trained: int
    state: StateDigest
    tokens_seen: int = 0
    beside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck(Record):
    """The rank is about to carry out this strike on itself."""

    kind: ClassVar[str] = "struck"
    strike: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveBegan(Record):
    """`save` is about to be called; `ordinal` counts the calls of this run from 1."""

    kind: ClassVar[str] = "save_began"
    step: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReturned(Record):
    """`save` returned: in synchronous mode the checkpoint of `step` is durable."""

    kind: ClassVar[str] = "save_returned"
    step: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained(Record):
    """`wait` or `flush_pending_save` returned: every save begun so far is durable."""

    kind: ClassVar[str] = "drained"
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised(Record):
    """An exception left the manager or the loop; `during` says which call."""

    kind: ClassVar[str] = "raised"
    during: str
    type: str
    message: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Record):
    """The loop ended in order; `reason` is `until_step` or `shutdown`."""

    kind: ClassVar[str] = "finished"
    step: int
    reason: str
    threads: tuple[str, ...] = field(default=())


_KINDS: dict[str, type[Record]] = {
    record.kind: record
    for record in (
        Started, Resumed, Refused, Stepped, Struck, SaveBegan, SaveReturned, Drained, Raised,
        Finished,
    )
}  # fmt: skip


def read_record(line: str) -> Record:
    """Parses a line of `to_line`. Raises ValueError for anything else."""
    value: dict[str, Any] = json.loads(line)
    kind = value.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown record kind {kind!r}; known are {', '.join(_KINDS)}")
    record = _KINDS[kind]
    for item in fields(record):
        if item.name == "state":
            value["state"] = StateDigest(**value["state"])
        elif isinstance(value.get(item.name), list):
            value[item.name] = tuple(value[item.name])
    return record(**value)
