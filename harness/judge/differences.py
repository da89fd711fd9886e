"""Describes the differences between two states of a rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness.evidence.record import Evaluated, Record, Resumed, StateDigest, Stepped


def state_differences(found: StateDigest, wanted: StateDigest) -> list[str]:
    """Describes names that only one side has, and names whose digests differ."""
    parts = (
        ("parameter", found.params, wanted.params),
        ("moment", found.moments, wanted.moments),
        ("random stream", found.rng, wanted.rng),
    )
    found_differences = [
        difference
        for word, here, there in parts
        for difference in name_differences(word, here, there)
    ]
    return found_differences + settings_differ(found, wanted)


def settings_differ(found: StateDigest, wanted: StateDigest) -> list[str]:
    """Describes the first difference in the settings of the optimizer's parameter groups."""
    names = sorted(found.groups.keys() | wanted.groups.keys())
    other = [name for name in names if found.groups.get(name) != wanted.groups.get(name)]
    return [
        f"optimizer setting {name} is {found.groups.get(name, 'missing')}, "
        f"not {wanted.groups.get(name, 'missing')}{_and_more(other)}"
        for name in other[:1]
    ]


def name_differences(word: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Does the same for one kind of names."""
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    groups = (("is missing", missing), ("is not in the reference", extra), ("differs", other))
    return [f"{word} {names[0]} {verb}{_and_more(names)}" for verb, names in groups if names]


def values_differ(decision: Resumed, wanted: Resumed | Stepped, words: frozenset[str]) -> list[str]:
    """Describes differences in the plain values that a load returns to the loop.

    `words` are those that the checkpoint of this step may have been saved with.
    """
    differences: list[str] = []
    if decision.tokens_seen != wanted.tokens_seen:
        differences.append(f"tokens_seen is {decision.tokens_seen}, not {wanted.tokens_seen}")
    if decision.kept not in words:
        wanted_words = " or ".join(repr(word) for word in sorted(words))
        differences.append(f"an extra value came back as {decision.kept!r}, not {wanted_words}")
    return differences + beside_differs(decision, wanted)


def beside_differs(found: Resumed | Stepped, wanted: Resumed | Stepped) -> list[str]:
    """Describes differences in the values that the loop keeps beside the model."""
    return [
        f"{name} is {number(found.beside.get(name))}, not {number(wanted.beside.get(name))}"
        for name in sorted(found.beside.keys() | wanted.beside.keys())
        if found.beside.get(name) != wanted.beside.get(name)
    ]


def number(text: str | None) -> str:
    """Formats a number that was written as hexadecimal."""
    return "none" if text is None else f"{float.fromhex(text):.9g} ({text})"


def rates(found: tuple[str, ...]) -> str:
    """Formats learning rates."""
    return ", ".join(number(rate) for rate in found) or "none"


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def differing_steps(event_log: Iterable[Record], expected: Mapping[int, Stepped]) -> Iterator[str]:
    """Describes the steps of a rank that differ from the expected ones, in their order."""
    found = {one.step: one for one in event_log if isinstance(one, Stepped)}
    for step, record in sorted(found.items()):
        if step not in expected:
            yield f"step {step}: the uninterrupted run has no such step"
        elif differences := step_differences(record, expected[step]):
            yield f"step {step}: {'; '.join(differences)}"


def differing_evaluations(
    event_log: Iterable[Record], reference: Iterable[Record]
) -> Iterator[str]:
    """Describes the evaluations of a rank with another loss than the reference's at that step."""
    expected = {one.step: one.loss for one in reference if isinstance(one, Evaluated)}
    for one in event_log:
        if isinstance(one, Evaluated) and one.loss != expected.get(one.step, one.loss):
            wanted = number(expected[one.step])
            yield f"evaluation after step {one.step}: loss is {number(one.loss)}, not {wanted}"


def step_differences(found: Stepped, wanted: Stepped) -> list[str]:
    """Describes the differences between two records of a step."""
    differences: list[str] = []
    if found.loss != wanted.loss:
        differences.append(f"loss is {number(found.loss)}, not {number(wanted.loss)}")
    if found.lr != wanted.lr:
        differences.append(f"learning rate is {rates(found.lr)}, not {rates(wanted.lr)}")
    differences += beside_differs(found, wanted)
    return differences + state_differences(found.state, wanted.state)
