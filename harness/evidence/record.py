"""A rank's own records, one JSON object per line.

The training job writes them, the judges read them. Every record carries its position `index` in the
total order of the run (the number of operations performed before it). The supervisor fills it in
when it reads the line; it is -1 if no supervisor watched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from harness.words import PERIODS


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDigest:
    """Digests of everything that a resumed rank must have back, by name.

    `params` (buffers among them) and `moments` map global names to digests of this rank's shard;
    `rng` maps generator names (`python`, `numpy`, `torch`, `cuda:0`, ...) to digests of their
    state. `groups` maps each setting of each parameter group of the optimizer (`0.weight_decay`) to
    its value as text.

    `pieces` is filled if a run shards in another way than the others. It maps the names of both to
    this rank's place in the whole and a digest that can be added up: `0,16+8,32 <hex>` begins at
    row 0 and column 16 and has 8 rows of 32. The sum over all pieces, modulo 2^64, is the digest of
    the whole, however it was split.
    """

    params: dict[str, str]
    moments: dict[str, str]
    rng: dict[str, str]
    groups: dict[str, str] = field(default_factory=dict)
    pieces: dict[str, str] = field(default_factory=dict)


_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


def plain_name(name: str) -> str:
    """Returns the global name of a parameter, whatever is wrapped around its block."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def keep_word(step: int, run: int) -> str:
    """Returns the extra value that a run gives to its save of a step, to recognize it later."""
    return f"kept with step {step} of run {run}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all records."""

    index: int = -1
    kind: str = ""

    def to_line(self) -> str:
        """Returns one line of ASCII JSON, without the newline; any part of it is valid text."""
        return _RECORDS.dump_json(self, ensure_ascii=True).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Record):
    """The rank is about to build its job."""

    kind: Literal["started"] = "started"
    rank: int
    pid: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered(Record):
    """The rank enters a period of its life; `step` is the last step that it has finished."""

    kind: Literal["entered"] = "entered"
    period: Literal[PERIODS]  # type: ignore[valid-type]
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Record):
    """The loss on held-out samples after a step, as in `Stepped`; it changes nothing."""

    kind: Literal["evaluated"] = "evaluated"
    step: int
    loss: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Record):
    """The decision at start and the state after it. `step` is None for a fresh start.

    `kept` is a word that the job passed to the save as an extra value, and that must come back. So
    must the values of `beside`, which the loop keeps and changes with every step.
    """

    kind: Literal["resumed"] = "resumed"
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

    kind: Literal["refused"] = "refused"
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped(Record):
    """One finished training step. `loss` and `lr` are `float.hex()`, so that equal means equal.

    `loss` is None on stages that have none. `frozen` names the module aliases whose parameters are
    all frozen; `trained` counts the parameters with a non-zero gradient.
    """

    kind: Literal["stepped"] = "stepped"
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

    kind: Literal["struck"] = "struck"
    strike: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveBegan(Record):
    """`save` is about to be called; `ordinal` counts the calls of this run from 1."""

    kind: Literal["save_began"] = "save_began"
    step: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReturned(Record):
    """`save` returned: in synchronous mode the checkpoint of `step` is durable."""

    kind: Literal["save_returned"] = "save_returned"
    step: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained(Record):
    """`wait` or `flush_pending_save` returned: every save begun so far is durable."""

    kind: Literal["drained"] = "drained"
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised(Record):
    """An exception left the manager or the loop; `during` says which call."""

    kind: Literal["raised"] = "raised"
    during: str
    type: str
    message: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Record):
    """The loop ended in order; `reason` is `until_step` or `shutdown`."""

    kind: Literal["finished"] = "finished"
    step: int
    reason: str
    threads: tuple[str, ...] = field(default=())


AnyRecord = Annotated[
    Started | Entered | Resumed | Refused | Stepped | Evaluated | Struck | SaveBegan | SaveReturned
    | Drained | Raised | Finished,
    Field(discriminator="kind"),
]  # fmt: skip
_RECORDS: TypeAdapter[Record] = TypeAdapter(AnyRecord)


def read_record(line: str) -> Record:
    """Parses a line of `to_line`. Raises ValueError for anything else."""
    return _RECORDS.validate_json(line)
