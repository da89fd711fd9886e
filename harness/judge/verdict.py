"""The verdict of a judge: holds, violated, unknown or does not apply, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.judge.outcome import Outcome
from harness.words import EvidenceKind

OperationRef = tuple[int, int]
"""A run, and the index of one of its operations."""

# More of the same does not help the reader; the last line says how many there were.
_MOST_DETAILS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one property.

    A property does not apply if it says nothing about the scenario, like freezing without freeze
    settings, or if the job cannot give the evidence that it needs; `details` says which. `lacks`
    names what it could have used and was not there: it was judged in part.
    """

    property: str
    state: Literal["holds", "violated", "unknown", "does_not_apply"]
    sentence: str
    details: tuple[str, ...] = ()
    operations: tuple[OperationRef, ...] = ()
    outcome: Outcome = Outcome.PASS
    lacks: tuple[str, ...] = ()

    def applies(self) -> bool:
        """Whether the property says anything about the scenario."""
        return self.state != "does_not_apply"

    def is_red(self) -> bool:
        """Whether it is violated or unknown."""
        return self.state in ("violated", "unknown")

    def left_out(self) -> str | None:
        """The part that was not judged and why, in one line; None if all was."""
        if not self.applies():
            return f"does not apply: {self.property} ({'; '.join(self.details)})"
        if self.lacks:
            return f"judged in part: {self.property} (no evidence of: {', '.join(self.lacks)})"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One observation against a property, and the operation after which it could be seen."""

    detail: str
    operation: OperationRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A property's name and sentence, the outcome of breaking it, and the evidence for it.

    Without any of the evidence that it `needs` the property does not apply. The evidence that it
    `uses` is judged if the job gives it; otherwise the verdict says that it does not.
    """

    name: str
    sentence: str
    outcome: Outcome
    needs: tuple[EvidenceKind, ...] = ()
    uses: tuple[EvidenceKind, ...] = ()

    def holds(self, *details: str, lacks: tuple[str, ...] = ()) -> Verdict:
        """Returns the verdict that everything that was checked agrees with the sentence.

        `lacks` names what the layout does not state, so that it was not checked.
        """
        return Verdict(
            property=self.name,
            state="holds",
            sentence=self.sentence,
            details=details,
            lacks=lacks,
        )

    def does_not_apply(self, reason: str) -> Verdict:
        """Returns the verdict that the sentence cannot be judged in this scenario."""
        return Verdict(
            property=self.name, state="does_not_apply", sentence=self.sentence, details=(reason,)
        )

    def unknown(self, *details: str) -> Verdict:
        """Returns the verdict that the evidence does not decide it."""
        return Verdict(
            property=self.name,
            state="unknown",
            sentence=self.sentence,
            details=_capped(details),
            outcome=Outcome.INVALID,
        )

    def violated(self, findings: Sequence[Finding], outcome: Outcome | None = None) -> Verdict:
        """Returns the verdict that the sentence is not true of this scenario."""
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
        """Returns violated if there is a finding, else holds."""
        return self.violated(findings) if findings else self.holds(*details)


def _capped(details: Sequence[str]) -> tuple[str, ...]:
    if len(details) <= _MOST_DETAILS:
        return tuple(details)
    return (*details[:_MOST_DETAILS], f"and {len(details) - _MOST_DETAILS} more like these")
