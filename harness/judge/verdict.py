"""The verdict of a judge: holds, violated or unknown, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.judge.outcome import Outcome

OperationRef = tuple[int, int]
"""A run and the index of one of its operations."""

# More of the same does not help the reader; the last line says how many there were.
_MOST_DETAILS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one property.

    `applies` is False where the property says nothing about this scenario, as freezing without
    freeze settings: such a verdict holds, but proves nothing.
    """

    property: str
    state: Literal["holds", "violated", "unknown"]
    sentence: str
    details: tuple[str, ...] = ()
    operations: tuple[OperationRef, ...] = ()
    outcome: Outcome = Outcome.PASS
    applies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One observation against a property, and the operation after which it could be seen."""

    detail: str
    operation: OperationRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A property's name and sentence, and the outcome of breaking it."""

    name: str
    sentence: str
    outcome: Outcome

    def holds(self, *details: str) -> Verdict:
        """Everything that was looked at agrees with the sentence."""
        return Verdict(property=self.name, state="holds", sentence=self.sentence, details=details)

    def does_not_apply(self, reason: str) -> Verdict:
        """The sentence says nothing about this scenario."""
        return Verdict(
            property=self.name,
            state="holds",
            sentence=self.sentence,
            details=(reason,),
            applies=False,
        )

    def unknown(self, *details: str) -> Verdict:
        """The evidence does not tell."""
        return Verdict(
            property=self.name,
            state="unknown",
            sentence=self.sentence,
            details=_capped(details),
            outcome=Outcome.INVALID,
        )

    def violated(self, findings: Sequence[Finding], outcome: Outcome | None = None) -> Verdict:
        """The sentence is not true of this scenario."""
        operations = [one.operation for one in findings if one.operation is not None]
        return Verdict(
            property=self.name,
            state="violated",
            sentence=self.sentence,
            details=_capped([finding.detail for finding in findings]),
            operations=tuple(dict.fromkeys(operations))[:_MOST_DETAILS],
            outcome=outcome or self.outcome,
        )

    def verdict(self, findings: Sequence[Finding], *details: str) -> Verdict:
        """Violated when there is a finding, else it holds."""
        return self.violated(findings) if findings else self.holds(*details)


def _capped(details: Sequence[str]) -> tuple[str, ...]:
    if len(details) <= _MOST_DETAILS:
        return tuple(details)
    return (*details[:_MOST_DETAILS], f"and {len(details) - _MOST_DETAILS} more like these")
