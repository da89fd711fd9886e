"""The command line: `python -m harness COMMAND`, see `--help`.

Exit status: 0 for PASS and for a schema, 1 for any other outcome, 2 for unusable input, 4 for an
implementation that cannot be started; `replay` also has 3 and 125. `docs/outcomes.md` says what to
do about each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arguments import make_parser
from harness.plan.asked import not_promised
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.run.command.command import CommandError
from harness.scenario.errors import ScenarioError
from harness.scenario.read import ScenarioFile, json_schema, read_file
from harness.workspace import open_workspace, slug

if TYPE_CHECKING:
    from harness.evidence.evidence import Evidence
    from harness.trial import Bench

PASSED, RED, BAD_INPUT, UNUSABLE = 0, 1, 2, 4

_PROMISE_MORE = "`--promises all` judges it all the same"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    try:
        return _do(make_parser().parse_args(arguments))
    except CommandError as error:
        return _complain(f"the command cannot be tested: {error}")


def _do(parsed: argparse.Namespace) -> int:
    match parsed.command:
        case "schema":
            return _say(json.dumps(json_schema(), indent=2), PASSED)
        case "judge":
            return _judge(parsed.directory)
        case "explain":
            return _explain(parsed.directory)
        case "capture":
            return _capture(parsed)
        case "mutants":
            return _mutants(parsed)
        case "coverage":
            return _coverage()
        case "matrix":
            return _matrix(parsed)
        case "compare":
            return _compare(parsed)
        case "try":
            return _try(parsed)
        case "conformance":
            return _conformance(parsed)
        case _:
            return _with_implementation(parsed)


def _with_implementation(parsed: argparse.Namespace) -> int:
    """Does what needs the implementation under test, if that can be started."""
    from harness.run.inspecting import ImplementationError, inspect_implementation

    try:
        chosen = inspect_implementation(_named(parsed), parsed.promises)
    except ImplementationError as error:
        return _complain(f"ERROR: {error}", UNUSABLE)
    match parsed.command:
        case "crash-states":
            return _crash_states(parsed, chosen)
        case "fuzz" | "shrink":
            return _generate(parsed, chosen)
        case _:
            return _run(parsed, chosen)


def _named(parsed: argparse.Namespace) -> Implementation:
    folder: Path | None = parsed.implementation_path
    path = None if folder is None else str(folder.resolve())
    return Implementation(name=parsed.implementation, path=path, layout=parsed.layout)


def _mutants(parsed: argparse.Namespace) -> int:
    from harness.mutants.catalogue import CatalogueError
    from harness.mutants.command import Wish, try_mutants
    from harness.run.support import missing

    if (reason := missing()) is not None:
        return _complain(f"scenarios cannot run here: {reason}")
    wish = Wish(
        catalogue=parsed.catalogue,
        folder=Path.cwd(),
        only=tuple(parsed.only),
        sample=None if parsed.full else parsed.sample,
        seed=parsed.seed,
        workers=parsed.workers,
        results=parsed.results,
        markdown=parsed.markdown,
    )
    try:
        return PASSED if try_mutants(wish) else RED
    except (CatalogueError, ScenarioError) as error:
        return _complain(str(error))


def _compare(parsed: argparse.Namespace) -> int:
    from harness.compare import compare, describe, versions_of
    from harness.run.inspecting import ImplementationError, inspect_implementation
    from harness.run.support import missing

    if (reason := missing()) is not None:
        return _complain(f"scenarios cannot run here: {reason}")
    common = _named(parsed)
    try:
        versions = versions_of(
            parsed.first,
            parsed.second,
            common,
            build=lambda one: inspect_implementation(one, parsed.promises),
        )
        found = compare(versions, Path.cwd(), patterns=parsed.only, workers=parsed.workers)
    except ImplementationError as error:
        return _complain(f"ERROR: {error}", UNUSABLE)
    except ScenarioError as error:
        return _complain(str(error))
    return _say(describe(found), RED if found.is_worse else PASSED)


def _try(parsed: argparse.Namespace) -> int:
    from harness.command.session import try_command
    from harness.command.trying import TryOptions
    from harness.run.command.command import Command, resume_words
    from harness.run.support import missing_mounts

    if (reason := missing_mounts()) is not None:
        return _complain(f"commands cannot run here: {reason}")
    words = tuple(parsed.words[parsed.words[:1] == ["--"] :])
    options = TryOptions(
        command=Command(
            words=words,
            cwd=Path.cwd(),
            environment=dict(os.environ),
            ranks=parsed.nproc,
            resume=resume_words(words, parsed.resume),
        ),
        result=tuple(parsed.result),
        step_line=parsed.step_line,
        cold=parsed.cold,
        limit_s=parsed.limit,
        budget_s=parsed.budget,
        most=parsed.states,
        at_once=parsed.workers,
    )
    with closing(open_workspace(failures=Path("failures").resolve())) as workspace:
        found = try_command(options, workspace, _progress)
    return _say(f"\n{found.text}", PASSED if found.is_green else RED)


def _conformance(parsed: argparse.Namespace) -> int:
    from harness.conformance.case import ConformanceError
    from harness.conformance.command import ConformanceWish, run_cases
    from harness.run.support import missing_mounts

    if (reason := missing_mounts()) is not None:
        return _complain(f"commands cannot run here: {reason}")
    wish = ConformanceWish(
        folder=Path("conformance"),
        only=tuple(parsed.only),
        stored=parsed.stored,
        budget_s=parsed.budget,
        markdown=parsed.markdown,
    )
    try:
        return PASSED if run_cases(wish, _progress) else RED
    except ConformanceError as error:
        return _complain(str(error))


def _progress(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _matrix(parsed: argparse.Namespace) -> int:
    from harness.matrix.command import make_page
    from harness.matrix.results import ResultsError

    try:
        text, is_green = make_page(Path.cwd(), parsed.junit, parsed.markdown)
    except (ScenarioError, ResultsError) as error:
        return _complain(str(error))
    if parsed.markdown is not None:
        parsed.markdown.write_text(text, encoding="utf-8")
    return _say(text, PASSED if is_green else RED)


def _judge(directory: Path) -> int:
    from harness.evidence.read import read_evidence
    from harness.judge.judge import judge
    from harness.report.text import describe

    try:
        evidence = read_evidence(directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _complain(f"{directory} is not a whole run directory: {error}")
    judgement = judge(evidence)
    text = describe(evidence, judgement, source=None, replay="")
    return _say(text, PASSED if judgement.outcome == "PASS" else RED)


def _explain(directory: Path) -> int:
    from harness.evidence.read import read_evidence
    from harness.explain.explain import explain

    try:
        evidence = read_evidence(directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _complain(f"{directory} is not a whole run directory: {error}")
    return _say(explain(evidence), PASSED)


def _capture(parsed: argparse.Namespace) -> int:
    from harness.capture.command import CaptureError, capture_directory

    try:
        captured, text = capture_directory(parsed.directory, parsed.output, deep=parsed.deep)
    except CaptureError as error:
        return _complain(str(error))
    return _say(text.rstrip("\n"), RED if captured.unreadable else PASSED)


def _run(parsed: argparse.Namespace, implementation: Implementation) -> int:
    from harness.run.support import missing

    path: Path = parsed.file
    if parsed.command == "replay" and path.is_dir():
        return _replay_directory(path, implementation)
    try:
        files = read_file(path)
    except ScenarioError as error:
        return _complain(str(error))
    if (reason := missing()) is not None:
        return _complain(f"{path} cannot run here: {reason}")
    if parsed.command == "explore":
        return max(_explore_all(files.values(), parsed, implementation))
    return max(_replay_all(files.values(), path, implementation))


def _replay_all(
    files: Iterable[ScenarioFile | ScenarioError], path: Path, implementation: Implementation
) -> Iterator[int]:
    from harness.prove import prove
    from harness.replay import replay_status
    from harness.report.text import describe_left_out
    from harness.run.support import missing_disk

    with _bench(implementation) as bench:
        for one in files:
            if isinstance(one, ScenarioError):
                yield _complain(str(one))
                continue
            if one.scenario.explore is not None:
                yield _complain(f"{path} is explored: python -m harness explore {path}")
                continue
            plan = make_plan(
                one.scenario, source=str(path), implementation=implementation, gpus=bench.gpus
            )
            if (reason := not_promised(plan)) is not None:
                yield _complain(f"{path} is {reason}; {_PROMISE_MORE}")
                continue
            if (reason := missing_disk(plan.filesystem)) is not None:
                yield _complain(f"{path} cannot run here: {reason}")
                continue
            proof = prove(bench, plan, one.source)
            left_out = describe_left_out(plan, proof.left_out)
            green = "\n".join([f"{proof.outcome} {plan.name}", *left_out])
            text = proof.text or proof.summary or green
            yield _say(text, replay_status(proof))


def _replay_directory(directory: Path, implementation: Implementation) -> int:
    from harness.replay import NoReplayError, replay_directory, replay_status
    from harness.run.support import missing

    if (reason := missing()) is not None:
        return _complain(f"{directory} cannot run here: {reason}")
    with _bench(implementation) as bench:
        try:
            proof = replay_directory(bench, directory)
        except NoReplayError as error:
            return _complain(str(error))
    return _say(proof.text, replay_status(proof))


def _explore_all(
    files: Iterable[ScenarioFile | ScenarioError],
    parsed: argparse.Namespace,
    implementation: Implementation,
) -> Iterator[int]:
    from harness.run.support import missing_disk
    from harness.search.explore.command import explore_job
    from harness.search.explore.job import Explored

    for one in files:
        if isinstance(one, ScenarioError):
            yield _complain(str(one))
            continue
        explore = one.scenario.explore
        if explore is None:
            yield _complain(
                f"{parsed.file} has no `explore`: python -m harness replay {parsed.file}"
            )
            continue
        if parsed.all or parsed.budget is not None:
            explore = explore.model_copy(update={"budget": parsed.budget})
        job = Explored(
            scenario=one.scenario.model_copy(update={"explore": explore}),
            shown=str(parsed.file),
        )
        plan = make_plan(one.scenario, source=job.shown, implementation=implementation)
        if (reason := not_promised(plan, explore)) is not None:
            yield _complain(f"{parsed.file} is {reason}; {_PROMISE_MORE}")
            continue
        if (reason := missing_disk(job.filesystem)) is not None:
            yield _complain(f"{parsed.file} cannot be explored here: {reason}")
            continue
        summary = explore_job(
            job, implementation=implementation, workers=parsed.workers, merge=not parsed.equal
        )
        yield PASSED if summary is not None and summary.is_green else RED


def _coverage() -> int:
    from harness.search.generate.coverage import describe_coverage, read_coverage

    return _say(describe_coverage(read_coverage(Path("failures"))), PASSED)


def _generate(parsed: argparse.Namespace, implementation: Implementation) -> int:
    from harness.run.support import missing
    from harness.search.generate.fuzz import Fuzz, fuzz
    from harness.search.shrink.command import shrink_place

    if (reason := missing()) is not None:
        return _complain(f"nothing can run here: {reason}")
    if parsed.command == "fuzz":
        asked = Fuzz(
            minutes=parsed.minutes,
            seed=parsed.seed,
            workers=parsed.workers,
            implementation=implementation,
            without=frozenset(parsed.without),
        )
        return PASSED if fuzz(asked) else RED
    try:
        done = shrink_place(
            parsed.place,
            implementation=implementation,
            workers=parsed.workers,
            seconds=parsed.seconds,
        )
    except (ScenarioError, OSError, ValueError, KeyError, TypeError) as error:
        return _complain(f"{parsed.place} cannot be shrunk: {error}")
    return PASSED if done else RED


def _crash_states(parsed: argparse.Namespace, implementation: Implementation) -> int:
    from harness.evidence.read import read_evidence
    from harness.run.support import missing, missing_disk

    needs_ranks = parsed.place.is_file() or parsed.limit > 0
    lacking = [missing()] if needs_ranks else []
    lacking += [missing_disk(name) for name in parsed.reproduce]
    if reasons := [reason for reason in lacking if reason is not None]:
        return _complain(f"{parsed.place} cannot run here: {reasons[0]}")
    if "power_cuts" not in implementation.promises:
        return _complain(f"{implementation.name} does not promise power_cuts: {_PROMISE_MORE}")
    with _bench(implementation) as bench:
        if parsed.place.is_file():
            return max(_crash_states_of(bench, parsed))
        try:
            evidence = read_evidence(parsed.place.resolve())
        except (OSError, ValueError, KeyError, TypeError) as error:
            return _complain(f"{parsed.place} is not a whole run directory: {error}")
        return _explore(bench, parsed, evidence)


def _crash_states_of(bench: Bench, parsed: argparse.Namespace) -> Iterator[int]:
    """Run each scenario of a file, and explore what each leaves."""
    from harness.run.support import missing_disk
    from harness.trial import try_plan

    try:
        files = read_file(parsed.place)
    except ScenarioError as error:
        yield _complain(str(error))
        return
    for one in files.values():
        if isinstance(one, ScenarioError):
            yield _complain(str(one))
            continue
        plan = make_plan(
            one.scenario,
            source=str(parsed.place),
            implementation=bench.implementation,
            gpus=bench.gpus,
        )
        if (reason := missing_disk(plan.filesystem)) is not None:
            yield _complain(f"{parsed.place} cannot run here: {reason}")
            continue
        trial = try_plan(bench, plan)
        if not trial.passed:
            broken = ", ".join(trial.judgement.broken) or "unknown verdicts"
            _say(f"the run itself: {trial.judgement.outcome} {plan.name}: {broken}", RED)
        status = _explore(bench, parsed, trial.evidence)
        if trial.passed and status == PASSED:
            trial.drop()
        else:
            kept = trial.keep(f"{slug(plan.name)}-crash-states")
            _say(f"evidence: {kept}", status)
        yield status


def _explore(bench: Bench, parsed: argparse.Namespace, evidence: Evidence) -> int:
    from harness.crash.prove import CrashOptions, prove

    asked = CrashOptions(
        profile=parsed.profile,
        seed=parsed.seed,
        limit=parsed.limit,
        filesystems=parsed.reproduce,
    )
    proof = prove(bench, evidence, asked)
    return _say(proof.text, PASSED if proof.outcome == "PASS" else RED)


@contextmanager
def _bench(implementation: Implementation) -> Iterator[Bench]:
    """Open a session of this command's own."""
    from harness.run.services import Services
    from harness.trial import Bench

    workspace = open_workspace(failures=Path("failures").resolve())
    with closing(workspace), Services(workspace.shared) as services:
        yield Bench(services=services, workspace=workspace, implementation=implementation)


def _say(text: str, status: int) -> int:
    sys.stdout.write(f"{text}\n")
    return status


def _complain(text: str, status: int = BAD_INPUT) -> int:
    sys.stderr.write(f"{text}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
