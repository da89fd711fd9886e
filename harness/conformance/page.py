"""Formats the results of the cases, for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.command.outcome import Kind
from harness.conformance.case import ConformanceCase, KnownViolation
from harness.conformance.result import CaseResult, Instances, NewViolation
from harness.judge.outcome import Outcome

_STRUCK: Mapping[Kind, str] = {
    "killed": "kills",
    "torn": "torn writes",
    "power": "power-cut states",
    "fault": "faults while it ran",
}
_ONE: Mapping[Kind, str] = {
    "killed": "a kill",
    "torn": "a torn write",
    "power": "a power cut",
    "fault": "a fault while it ran",
}
_INTRODUCTION = """\
# Conformance: training scripts of other projects

Each script of `conformance/` trains a small model for a few steps and resumes in the way that its
project documents. It runs unmodified under `python -m harness try` ([try.md](try.md)): it is
started again from each state in which a kill, a torn write or a power cut could have left its
directory, and in what a fault left while it ran. The page is made by

    conformance/setup
    python -m harness conformance --markdown docs/conformance.md

A state of a power cut is one that the model of [crash-model.md](crash-model.md) allows; POSIX
allows it, and a given file system may rule it out. A violation is a difference between a resumed
run and an uninterrupted one. It says nothing about how often the instant that leads to it occurs.
Each was checked by hand without the harness; how is said beside it. A case is as expected if it
shows these violations and no other."""


def page(cases: Mapping[str, ConformanceCase], results: Mapping[str, CaseResult]) -> str:
    """Returns the page; a case without a result is listed as not run."""
    ran = {name: results[name] for name in cases if name in results}
    sections = (
        [_INTRODUCTION],
        _overview(cases, ran),
        *(_section(name, cases[name], ran[name]) for name in ran),
        _not_run({name: case for name, case in cases.items() if name not in ran}),
    )
    return "\n\n".join("\n".join(one).strip("\n") for one in sections) + "\n"


def describe_result(case: ConformanceCase, result: CaseResult) -> str:
    """Returns the result of one case for a terminal."""
    return "\n".join(_described(case, result))


def _described(case: ConformanceCase, result: CaseResult) -> Iterator[str]:
    if result.run.refused:
        yield f"the command cannot be tested: {result.run.refused}"
        return
    yield f"{_struck(result)} of {result.states} states; {_outcomes(result)}"
    for one in case.violations:
        if one.id in result.known:
            yield f"known: {one.outcome} {one.id}: {_counted(result.known[one.id])}"
    for new in result.new:
        yield f"NEW: {_new(new)}"
    for name in result.vanished(case):
        yield f"VANISHED: {name}"
    yield from (f"not judged: {one}" for one in result.not_judged)
    yield "as expected" if result.is_expected(case) else "NOT AS EXPECTED"


def _overview(cases: Mapping[str, ConformanceCase], ran: Mapping[str, CaseResult]) -> Iterator[str]:
    yield "| case | version | ranks | " + " | ".join(_STRUCK.values()) + " | violations |"
    yield "|---|---|---|" + "---|" * len(_STRUCK) + "---|"
    for name, result in ran.items():
        case = cases[name]
        version = ", ".join(f"{one} {number}" for one, number in result.run.versions.items())
        struck = " | ".join(str(result.struck.get(kind, 0)) for kind in _STRUCK)
        found = ", ".join(one.id for one in case.violations if one.id in result.known)
        others = f"{len(result.new)} not checked" if result.new else ""
        shown = ", ".join(filter(None, (found, others))) or "none"
        yield f"| [{name}](#{name}) | {version} | {case.ranks} | {struck} | {shown} |"


def _section(name: str, case: ConformanceCase, result: CaseResult) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    control = " It is a control: it must not be accused." if case.control else ""
    yield f"{case.title}.{control} Script: `conformance/{case.script}`, run on {result.run.day} as"
    yield ""
    yield f"    {' '.join(case.command)}"
    yield ""
    if case.notes:
        yield from (case.notes.strip(), "")
    if result.run.refused:
        yield f"The command could not be tested: {result.run.refused}"
        return
    yield f"{_struck(result)} of {result.states} distinct states. Outcomes: {_outcomes(result)}."
    for one in case.violations:
        if one.certain or one.id in result.known:
            yield from _violation(one, result.known.get(one.id))
    yield from (f"\n**Not checked:** {_new(one)}" for one in result.new)
    yield from (f"\nNot judged: {one}." for one in result.not_judged)


def _violation(known: KnownViolation, seen: Instances | None) -> Iterator[str]:
    yield ""
    yield f"**{known.id}** ({known.outcome}): {known.says.strip()}"
    yield ""
    yield f"- Seen: {_counted(seen) if seen else 'not in this run'}"
    yield f"- Cause: {known.cause.strip()}"
    yield f"- Checked: {known.checked.strip()}"


def _not_run(cases: Mapping[str, ConformanceCase]) -> Iterator[str]:
    yield "## Not run"
    yield ""
    yield from (f"- {one.title}: {one.not_run or 'no result here'}" for one in cases.values())
    if not cases:
        yield "Nothing."


def _struck(result: CaseResult) -> str:
    return ", ".join(f"{result.struck.get(kind, 0)} {name}" for kind, name in _STRUCK.items())


def _outcomes(result: CaseResult) -> str:
    counts = ((one, result.outcomes.get(one, 0)) for one in Outcome)
    return ", ".join(f"{count} {one}" for one, count in counts if count)


def _new(one: NewViolation) -> str:
    return f"{one.outcome}: {one.sentence} ({_counted(one.instances)})"


def _counted(seen: Instances) -> str:
    counts = ", ".join(
        f"{seen.counts[kind]} by {_ONE[kind]}" for kind in _ONE if kind in seen.counts
    )
    return f"{counts}; first: {seen.first}"
