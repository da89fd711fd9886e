"""The report on a scenario, for a reader who sees the failure for the first time.

It answers the questions in this order: what happened, which promise is broken and how that shows,
which operations surround it, what the ranks raised, which lines of the scenario asked for it, and
how to reproduce it.
"""

from __future__ import annotations

import re
import shlex
import signal
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Raised
from harness.judge.event_logs import killed_ranks
from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome
from harness.judge.power import taken
from harness.plan.model import Plan
from harness.report.frames import is_consequence, short_stacks, short_traceback
from harness.report.operations import around
from harness.scenario.source import Source

_WIDTH = 150
_SENTENCE_WIDTH = 110
# A report fits on one or two screens; each part has its share, and the whole its own limit.
_MOST_LINES = 120
_MOST_EXCEPTION_LINES = 26
_MOST_YAML_LINES = 28
_MOST_FRAMES = 3
_MOST_MESSAGE_LINES = 5
_MOST_LOG_LINES = 8
_NO_EVIDENCE = re.compile(r"([a-z ]+): (\w+) \(no evidence of: .*\)")
"""A line of what was left out because of a missing kind of evidence."""


def describe(
    evidence: Evidence, judgement: Judgement, *, source: Source | None, replay: str
) -> str:
    """Returns the report on one scenario. `source` and `replay` are left out if there are none."""
    plan = evidence.plan
    lines = [f"{judgement.outcome} {plan.name}", *_where(evidence), ""]
    lines += _verdicts(judgement, describe_left_out(plan, judgement.left_out))
    if judgement.outcome is not Outcome.PASS:
        lines += _part("operations", around(evidence, judgement))
        lines += _part("where the ranks hung", describe_stacks(evidence))
        lines += _part("what the ranks raised", _exceptions(evidence))
        lines += _part("what they printed before they died", _last_words(evidence))
        if source is not None:
            lines += _part(source.path, _yaml(source))
    end = ["", "replay:", f"  {replay}"] if replay else []
    return "\n".join(_capped([_clipped(line) for line in lines], _MOST_LINES - len(end)) + end)


def _where(evidence: Evidence) -> Iterator[str]:
    plan = evidence.plan
    yield describe_job(plan)
    for number, run in enumerate(evidence.runs):
        yield from _by_operator(evidence, number)
        exits = ", ".join(str(status) for status in run.processes.exits)
        yield (
            f"run {number}: {_other_world(plan, number)}{len(run.operations)} operations, "
            f"exits [{exits}], {run.processes.seconds:.1f} s{_result(run)}"
        )
        yield from _power(evidence, number)
    yield from _by_operator(evidence, len(evidence.runs))
    yield f"evidence: {evidence.directory}"
    yield f"what happened: python -m harness explain {evidence.directory}"


def describe_job(plan: Plan) -> str:
    """Describes what runs in the ranks, in one line."""
    if plan.command is not None:
        job = plan.command.job
        several = "" if job.nproc == 1 else f"{job.nproc} processes of "
        return several + shlex.join(job.command)
    workload = plan.workload
    mode = plan.checkpoint.async_mode if plan.checkpoint is not None else "never saves"
    return f"{workload.world} on {workload.device}, checkpoints {mode}, {plan.implementation.name}"


def _result(run: RunEvidence) -> str:
    """Returns how the result of a command compares, if it was compared."""
    if run.result is None or not run.result.is_compared:
        return ""
    return ", another result" if run.result.differences else ", the same result"


def _power(evidence: Evidence, run: int) -> Iterator[str]:
    """Yields the losses of a power cut at the end of a run."""
    cut, lost = evidence.runs[run].cut, taken(evidence, run)
    if cut is not None and lost is not None:
        yield f"run {run}: the power of {cut.filesystem} was cut, journal {cut.journal}: {lost}"
        yield f"run {run}: {cut.how}"


def _by_operator(evidence: Evidence, run: int) -> Iterator[str]:
    """Yields the actions on the directory before a run."""
    at_rest = evidence.at_rest.get(run)
    for done in at_rest.done if at_rest is not None else ():
        what = ", ".join(done.paths) or done.problem
        yield f"before run {run}, operator: {done.action} {what}"


def _other_world(plan: Plan, run: int) -> str:
    world = plan.workload_of(run).world
    return "" if world == plan.workload.world else f"{world}, "


def describe_left_out(plan: Plan, left_out: Sequence[str]) -> list[str]:
    """Returns the lines about what was not judged; of a command, which gives little evidence, those
    that only name the missing kinds are joined."""
    if plan.command is None:
        return list(left_out)
    joined: dict[str, list[str]] = {}
    rest = []
    for line in left_out:
        found = _NO_EVIDENCE.fullmatch(line)
        if found is None:
            rest.append(line)
        else:
            joined.setdefault(found[1], []).append(found[2])
    more = [f"{how}, for lack of evidence: {', '.join(names)}" for how, names in joined.items()]
    return [*rest, *more]


def _verdicts(judgement: Judgement, left_out: Iterable[str]) -> Iterator[str]:
    for guard in judgement.guards:
        if not guard.passed:
            yield from _wrapped(f"{guard.outcome} {guard.name}: not true: {guard.sentence}")
            yield from (f"  - {detail}" for detail in guard.details[:9])
    for state in ("violated", "unknown"):
        for verdict in judgement.verdicts:
            if verdict.state == state:
                head = f"{state.upper()} {verdict.property} ({verdict.outcome}): "
                yield from _wrapped(head + verdict.sentence)
                yield from (f"  - {detail}" for detail in verdict.details)
    held = [one.property for one in judgement.verdicts if one.state == "holds"]
    yield f"holds: {', '.join(held) or 'nothing'}"
    yield from left_out


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _SENTENCE_WIDTH, subsequent_indent="  ")


def _part(title: str, lines: Iterator[str]) -> list[str]:
    found = list(lines)
    return ["", f"{title}:", *found] if found else []


def _exceptions(evidence: Evidence) -> Iterator[str]:
    """Yields each distinct exception once, with the end of its trace and its ranks."""
    same: dict[tuple[int, str, str, str], tuple[list[int], str]] = {}
    for number, run in enumerate(evidence.runs):
        for rank, event_log in enumerate(run.event_logs):
            for record in event_log:
                if isinstance(record, Raised):
                    key = (number, record.during, record.type, record.message)
                    same.setdefault(key, ([], record.trace))[0].append(rank)
    lines: list[str] = []
    # The cause first: a rank whose peer is gone raises because of that.
    causes_first = sorted(same.items(), key=lambda one: is_consequence(one[0][2], one[0][3]))
    for (number, during, kind, message), (ranks, trace) in causes_first:
        where = ", ".join(str(rank) for rank in ranks)
        lines.append(f"  run {number}, rank {where}, during {during}: {kind}")
        lines += [f"    {line}" for line in _both_ends(message.splitlines())]
        frames = short_traceback(trace, _module(evidence), most=_MOST_FRAMES)
        lines += [f"    | {line}" for line in frames]
    yield from _capped(lines, _MOST_EXCEPTION_LINES)


def describe_stacks(evidence: Evidence) -> Iterator[str]:
    """Yields, for each rank that hung, the last operation that it asked for, and its stacks."""
    for number, run in enumerate(evidence.runs):
        for rank in run.processes.hung:
            last = [one for one in run.operations if one.rank == rank][-1:]
            ended = [f"its last operation was {one.kind} {one.path}" for one in last]
            yield f"  {', '.join((f'run {number}', f'rank {rank}', *ended))}"
            text = run.stacks.get(rank, "")
            stacks = short_stacks(text, _module(evidence), most=_MOST_FRAMES)
            yield from (f"    {line}" for line in stacks or ["no stack: it was stopped or gone"])


def _module(evidence: Evidence) -> str:
    return evidence.plan.implementation.name.partition(":")[0]


def _both_ends(lines: list[str]) -> list[str]:
    """Returns a long message without its middle: many begin with a summary and end with a cause."""
    if len(lines) <= _MOST_MESSAGE_LINES:
        return lines
    first, last = lines[: _MOST_MESSAGE_LINES - 2], lines[-1]
    return [*first, f"... {len(lines) - len(first) - 1} more lines", last]


def _last_words(evidence: Evidence) -> Iterator[str]:
    """Yields the end of the output of ranks that died by a signal which no strike sent.

    Of a command, which records no exception, also of ranks that failed.
    """
    for number, run in enumerate(evidence.runs):
        sent = killed_ranks(evidence, number) | {*run.processes.hung, *run.processes.stopped}
        for rank, status in enumerate(run.processes.exits):
            failed = status < 0 or (status > 0 and evidence.plan.command is not None)
            if not failed or rank in sent:
                continue
            yield f"  run {number}, rank {rank}, {_end(status)}:"
            log = Path(evidence.directory, f"run{number}", f"rank{rank}.log")
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            yield from (f"    {line}" for line in text.rstrip().splitlines()[-_MOST_LOG_LINES:])


def _end(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    name = signal.strsignal(-status)
    return f"signal {-status}{f' ({name})' if name else ''}"


def _yaml(source: Source) -> Iterator[str]:
    """Yields the numbered lines of the scenario; if it is long, those from `runs` on."""
    lines = source.text.rstrip().splitlines()
    first = 1
    if len(lines) > _MOST_YAML_LINES:
        place = source.lines.get(("runs",), 1)
        first = min(place, len(lines) - _MOST_YAML_LINES + 1)
    for number in range(first, min(first + _MOST_YAML_LINES, len(lines) + 1)):
        yield f"  {number:>4} | {lines[number - 1]}"


def _clipped(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 4] + " ..."


def _capped(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"  ... {len(lines) - most + 1} more lines"]
