"""Defines the commands of `python -m harness` and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.plan.model import Implementation
from harness.promises import PromiseError, parse_promises
from harness.scenario.errors import choices
from harness.search.generate.job import AREAS
from harness.words import FILE_SYSTEMS

WORKERS = 2
"""Two jobs of two ranks each use two cores well; see `benchmarks/explore.py`."""

PROMISES_HELP = (
    "what the implementation promises: `all`, `documented`, properties and parts of them, or "
    "`-WORD` for all but one; by default our package promises all, another implementation what "
    "its class says in `promises`, else the documented API"
)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `python -m harness`."""
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description="Scenarios for checkpointers. `pytest scenarios/` runs them all.",
        epilog="Exit status: 0 PASS, 1 any other outcome, 2 unusable input, 4 an implementation "
        "that cannot be started; of replay 3 OTHER, 125 INVALID.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("schema", help="print the JSON Schema of scenario files")
    judging = commands.add_parser("judge", help="judge a run directory again without running it")
    judging.add_argument("directory", type=Path, help="the run directory")
    explaining = commands.add_parser("explain", help="explain what happened in a run directory")
    explaining.add_argument("directory", type=Path, help="the run directory")
    capturing = commands.add_parser("capture", help="turn a broken directory into a scenario")
    capturing.add_argument("directory", type=Path, help="a directory of checkpoints")
    capturing.add_argument("--deep", action="store_true", help="also look for changed bytes")
    capturing.add_argument("-o", "--output", type=Path, metavar="FILE", help="write this new file")
    replaying = commands.add_parser("replay", help="run a failure again: FIXED, SAME or OTHER")
    replaying.add_argument(
        "file", type=Path, help="a scenario, such as a file of failures/, or a run directory"
    )
    _add_implementation(replaying)
    exploring = commands.add_parser("explore", help="make every strike that `explore:` asks for")
    exploring.add_argument("file", type=Path, help="a scenario with `explore:`")
    _add_implementation(exploring)
    exploring.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="at once")
    budget = exploring.add_mutually_exclusive_group()
    budget.add_argument("--budget", type=int, metavar="N", help="at most N strikes")
    budget.add_argument("--all", action="store_true", help="every strike, whatever the file says")
    exploring.add_argument("--equal", action="store_true", help="strike equal points, too")
    crashing = commands.add_parser(
        "crash-states", help="judge what a power cut at any instant of a run could leave"
    )
    crashing.add_argument("place", type=Path, help="a scenario file, or a run directory")
    crashing.add_argument("--profile", choices=("ordered", "posix"), default="posix")
    crashing.add_argument(
        "--limit", type=int, default=40, help="start the job again from at most this many states"
    )
    crashing.add_argument(
        "--reproduce",
        type=_file_systems,
        default=(),
        metavar="NAME,...",
        help=f"try the hits on real file systems: {', '.join(FILE_SYSTEMS)}; needs root",
    )
    crashing.add_argument("--seed", type=int, default=0, help="for states that are sampled")
    _add_implementation(crashing)
    _add_trying(
        commands.add_parser(
            "try",
            help="test a training command, unmodified",
            usage="python -m harness try [OPTIONS] -- COMMAND ... {dir} ...",
        )
    )
    _add_conformance(
        commands.add_parser("conformance", help="test the training scripts of other projects")
    )
    _add_comparison(
        commands.add_parser("compare", help="show what only one of two versions breaks")
    )
    _add_mutants(commands.add_parser("mutants", help="show what catches the mutants, as a table"))
    _add_generating(commands)
    _add_matrix(
        commands.add_parser("matrix", help="show what ran on which layout, mode and device")
    )
    return parser


def _add_trying(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nproc", type=int, default=1, metavar="N", help="ranks, if the command has no launcher"
    )
    parser.add_argument(
        "--resume",
        default="",
        metavar="WORDS",
        help="the command of a start that finds a checkpoint, or options to add to the first one, "
        'as in --resume="--resume-from {dir}/latest"; by default the same command',
    )
    parser.add_argument(
        "--result",
        action="append",
        default=[],
        metavar="PATTERN",
        help="files below {dir} to compare; by default the newest checkpoint",
    )
    parser.add_argument(
        "--step-line",
        metavar="REGEX",
        help="finds the lines of a step, and its number as the first group; by default learned",
    )
    parser.add_argument("--cold", action="store_true", help="execute the command at every start")
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="SECONDS", help="for all starts from states"
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        help="a start that takes longer hangs; by default 20 times the uninterrupted run, and 30 s "
        "(900 s for that run itself)",
    )
    parser.add_argument("--states", type=int, metavar="N", help="at most so many of them")
    parser.add_argument(
        "--workers", type=int, default=WORKERS + 1, metavar="N", help="starts at once"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="after `--`")


def _add_conformance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases to run")
    parser.add_argument("--stored", action="store_true", help="run none, take the newest results")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="for all starts of a case from states"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the page of the newest results there"
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    for name, which in (("first", "the one before"), ("second", "the one after")):
        place = "its folder, as for --implementation-path, or another MODULE:NAME"
        parser.add_argument(name, metavar=name.upper(), help=f"{which}: {place}")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="scenarios such as `async/*`"
    )
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="at once")
    _add_implementation(parser)


def _add_matrix(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--junit", nargs="+", type=Path, default=[], metavar="FILE", help="results of test runs"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there")


def _add_generating(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fuzzing = commands.add_parser("fuzz", help="run generated scenarios, and shrink failures")
    fuzzing.add_argument("--minutes", type=float, default=10.0, metavar="M", help="how long")
    fuzzing.add_argument("--seed", type=int, default=0, metavar="S", help="which scenarios")
    leave_out = f"areas that the implementation does not promise: {', '.join(AREAS)}"
    fuzzing.add_argument(
        "--without", nargs="+", choices=AREAS, default=(), metavar="AREA", help=leave_out
    )
    shrinking = commands.add_parser("shrink", help="find the smallest scenario that fails alike")
    shrinking.add_argument("place", type=Path, help="a scenario file, or a run directory")
    shrinking.add_argument("--seconds", type=float, default=110.0, metavar="N", help="at most")
    for one in (fuzzing, shrinking):
        one.add_argument("--workers", type=int, default=WORKERS, metavar="W", help="at once")
        _add_implementation(one)
    commands.add_parser("coverage", help="show which strikes have fired in generated scenarios")


def _add_mutants(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--catalogue", default="tests.mutants.catalogue:BUGS", metavar="MODULE:NAME"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these mutants")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--sample", type=int, default=0, metavar="N", help="N more scenarios for each mutant"
    )
    size.add_argument("--full", action="store_true", help="each mutant with every scenario")
    parser.add_argument("--seed", type=int, default=0, help="for the sample")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="at once")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="earlier results, which are not run again"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")


def _file_systems(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in FILE_SYSTEMS]:
        known = ", ".join(FILE_SYSTEMS)
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a file system; possible: {known}")
    return names


def _add_implementation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--implementation", default=Implementation().name, metavar="MODULE:NAME")
    parser.add_argument("--implementation-path", type=Path, metavar="DIR")
    parser.add_argument("--layout", type=layout_name, default=DEFAULT, metavar="NAME")
    parser.add_argument("--promises", type=promises_text, metavar="WORD,...", help=PROMISES_HELP)


def promises_text(text: str) -> tuple[str, ...]:
    """The argument of `--promises`: what the implementation can be blamed for."""
    try:
        return parse_promises(text)
    except PromiseError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def layout_name(text: str) -> str:
    """The argument of `--layout`: what directories of the implementation look like."""
    if text not in LAYOUTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no layout; {choices(text, LAYOUTS)}")
    return text
