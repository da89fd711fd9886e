"""The failure signature of a scenario, which identifies failures of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The outcome, and the property or guard that decided it."""

    outcome: Outcome
    broken: str

    def __str__(self) -> str:
        return f"{self.outcome} by {self.broken}"


def signature_of(judgement: Judgement) -> Signature | None:
    """Returns the signature of a judgement; None if everything holds."""
    if judgement.outcome is Outcome.PASS:
        return None
    return Signature(outcome=judgement.outcome, broken=_broken(judgement)[0])


def shows(judgement: Judgement, signature: Signature) -> bool:
    """Whether a scenario failed like that; it may break other properties in addition."""
    return judgement.outcome is signature.outcome and signature.broken in _broken(judgement)


def _broken(judgement: Judgement) -> list[str]:
    """Returns the causes of the outcome, in the order of the report."""
    guards = [one.name for one in judgement.guards if one.outcome is judgement.outcome]
    verdicts = [
        one.property
        for one in judgement.verdicts
        if one.is_red() and one.outcome is judgement.outcome
    ]
    return [*verdicts, *guards]
