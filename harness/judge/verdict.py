"""The verdict of a judge: holds, violated, unknown or does not apply, with the reasons."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from harness.judge.outcome import Outcome, worst
from harness.words import EvidenceKind

OperationRef = tuple[int, int]
"""A run, and the index of one of its operations."""


class _Shown(TypedDict):
    details: tuple[str, ...]
    operations: tuple[OperationRef, ...]
    outcome: Outcome
    findings: tuple[Finding, ...]


# More of the same does not help the reader; the last line says how many there were.
_MOST_DETAILS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one property.

    A property does not apply if it says nothing about the scenario, like freezing without freeze
    settings, or if the job cannot give the evidence that it needs; `details` says which. `lacks`
    names what it could have used and was not there: it was judged in part. `spared` are findings
    against what the implementation does not promise; the state is `not_promised` if it promises
    nothing of the property, or if there was nothing else to find.
    """

    property: str
    state: Literal["holds", "violated", "unknown", "does_not_apply", "not_promised"]
    sentence: str
    details: tuple[str, ...] = ()
    operations: tuple[OperationRef, ...] = ()
    outcome: Outcome = Outcome.PASS
    lacks: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    spared: tuple[Finding, ...] = ()

    def applies(self) -> bool:
        """Whether the property says anything about the scenario."""
        return self.state != "does_not_apply"

    def within(self, promises: Collection[str]) -> Verdict:
        """Returns the verdict on an implementation that promises no more than this."""
        if not self.applies():
            return self
        if self.property not in promises:
            return self._spared(self.findings)
        spared = tuple(one for one in self.findings if one.part not in (None, *promises))
        if not spared:
            return self
        counted = tuple(one for one in self.findings if one not in spared)
        if not counted:
            return self._spared(spared)
        return replace(self, **_as_shown(counted), spared=spared)

    def _spared(self, findings: tuple[Finding, ...]) -> Verdict:
        return Verdict(
            property=self.property, state="not_promised", sentence=self.sentence, spared=findings
        )

    def is_red(self) -> bool:
        """Whether it is violated or unknown."""
        return self.state in ("violated", "unknown")

    def left_out(self) -> str | None:
        """The part that was not judged and why, in one line; None if all was."""
        if not self.applies():
            return f"does not apply: {self.property} ({'; '.join(self.details)})"
        if self.state == "not_promised" or self.spared:
            parts = sorted({one.part or self.property for one in self.spared}) or [self.property]
            seen = f": {self.spared[0].detail}" if self.spared else ""
            more = f", and {len(self.spared) - 1} more" if len(self.spared) > 1 else ""
            return f"not promised: {self.property} ({', '.join(parts)}){seen}{more}"
        if self.lacks:
            return f"judged in part: {self.property} (no evidence of: {', '.join(self.lacks)})"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One observation against a property, and the operation after which it could be seen.

    `part` names the part of the property that it is against (`harness.promises`), if an
    implementation can keep the property without it. `outcome` is None for that of the property.
    """

    detail: str
    operation: OperationRef | None = None
    part: str | None = None
    outcome: Outcome | None = None


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
        """Returns the verdict that the sentence is not true of this scenario.

        Its outcome is the worst of the findings', which is `outcome` where they have none.
        """
        usual = outcome or self.outcome
        found = tuple(replace(one, outcome=one.outcome or usual) for one in findings)
        return Verdict(
            property=self.name, state="violated", sentence=self.sentence, **_as_shown(found)
        )

    def verdict(self, findings: Sequence[Finding], *details: str) -> Verdict:
        """Returns violated if there is a finding, else holds."""
        return self.violated(findings) if findings else self.holds(*details)


def _as_shown(findings: Sequence[Finding]) -> _Shown:
    """Returns the parts of a verdict that say what was found."""
    operations = [one.operation for one in findings if one.operation is not None]
    outcomes = [one.outcome for one in findings if one.outcome is not None]
    return {
        "details": _capped([one.detail for one in findings]),
        "operations": tuple(dict.fromkeys(operations))[:_MOST_DETAILS],
        "outcome": worst(failed_guards=(), violated=outcomes, unknown=0),
        "findings": tuple(findings),
    }


def _capped(details: Sequence[str]) -> tuple[str, ...]:
    if len(details) <= _MOST_DETAILS:
        return tuple(details)
    return (*details[:_MOST_DETAILS], f"and {len(details) - _MOST_DETAILS} more like these")
