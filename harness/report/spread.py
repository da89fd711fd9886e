"""Compares the outcomes of an item that ran several times. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The verdicts of one item, each with its count."""

    item: str
    verdicts: Mapping[str, int]

    @property
    def is_flaky(self) -> bool:
        """Whether its verdicts differ."""
        return len(self.verdicts) > 1

    def __str__(self) -> str:
        most_first = sorted(self.verdicts.items(), key=lambda one: (-one[1], one[0]))
        counts = ", ".join(f"{count} x {verdict}" for verdict, count in most_first)
        return f"{'FLAKY ' if self.is_flaky else ''}{self.item}: {counts}"


def spreads(seen: Iterable[tuple[str, str]]) -> tuple[Spread, ...]:
    """Groups pairs of an item and one of its verdicts; items keep their order."""
    counts: dict[str, Counter[str]] = {}
    for item, verdict in seen:
        counts.setdefault(item, Counter())[verdict] += 1
    return tuple(Spread(item=item, verdicts=dict(one)) for item, one in counts.items())


def describe_spreads(found: Iterable[Spread], *, only_flaky: bool) -> Iterator[str]:
    """Yields a line for each item, and one with the totals."""
    known = tuple(found)
    flaky = [one for one in known if one.is_flaky]
    yield from (str(one) for one in (flaky if only_flaky else known))
    runs = sum(sum(one.verdicts.values()) for one in known)
    yield f"{len(known)} items in {runs} runs: {len(flaky)} with different verdicts"
