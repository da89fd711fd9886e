"""The command line, `kempnerforge-ckpt`.

Exit status:

- 0: all is well.
- 1: problems or differences were found.
- 2: the command cannot be carried out: a wrong argument, or nothing at that path.
- 3: a job is using the directory; nothing was changed.
- 4: something could not be read (for lack of permission, say) or was written by a newer version, so
  it is unknown whether all is well; nothing was changed.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kempnerforge.checkpoint.errors import (
    CheckpointError,
    DirectoryInUseError,
    shows_damage,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import Entry, inspect
from kempnerforge.checkpoint.protocol.pointer import follow_file
from kempnerforge.checkpoint.protocol.retention import RetentionPolicy
from kempnerforge.checkpoint.runtime.directories import local_directory
from kempnerforge.checkpoint.runtime.guarded import guarded
from kempnerforge.checkpoint.runtime.lease import LEASE_S
from kempnerforge.checkpoint.runtime.lock import acquire
from kempnerforge.cli.cautious import CautiousStorage
from kempnerforge.cli.checking import CheckedDirectory, check, check_directory
from kempnerforge.cli.cleaning import clean
from kempnerforge.cli.comparing import compare
from kempnerforge.cli.listing import list_directory, show
from kempnerforge.cli.mending import Step, apply, plan_repair, plan_retention
from kempnerforge.cli.printing import Result, as_json, as_text
from kempnerforge.config.checkpoint import DynamicCheckpointWindow

__all__ = ["main"]

FINE, FOUND_PROBLEMS, CANNOT, IN_USE, UNKNOWN = 0, 1, 2, 3, 4
# A job that starts holds the lock for a moment, while it cleans up after a dead one.
_PATIENCE_S = 1.0


class _CannotError(Exception):
    """The request cannot be carried out; its text says why."""


class _UnknownError(Exception):
    """The requested files cannot be read; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    result: Result
    status: int
    steps: tuple[Step, ...] | None = None
    """Changes that the command plans; None for a command that only looks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser, arguments = _parser(), sys.argv[1:] if arguments is None else arguments
    if [*arguments[:1]] == ["capture"]:
        parser.error("unknown command capture: `python -m harness capture DIR` makes scenarios")
    parsed = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], _Outcome] = parsed.run
    try:
        with _access(parsed) as confirm:
            outcome = _look(command, parsed)
            applied = None if outcome.steps is None else bool(parsed.apply)
            if outcome.steps and applied:
                _apply(parsed.directory, outcome.steps, confirm)
    except DirectoryInUseError as error:
        sys.stderr.write(f"kempnerforge-ckpt: nothing was changed: {clean(error)}\n")
        return IN_USE
    except (_UnknownError, _CannotError, OSError, ValueError) as error:
        sys.stderr.write(f"kempnerforge-ckpt: {clean(error)}\n")
        return UNKNOWN if isinstance(error, _UnknownError) else CANNOT
    return _print(parsed, outcome, applied=applied)


def _look(
    command: Callable[[argparse.Namespace], _Outcome], parsed: argparse.Namespace
) -> _Outcome:
    """Runs the reading part of a command, which changes no checkpoint."""
    try:
        return command(parsed)
    except (CheckpointError, OSError) as error:
        kind = _CannotError if shows_damage(error) else _UnknownError
        raise kind(str(error)) from error


@contextmanager
def _access(parsed: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Holds the lock that jobs take, from the plan to the last change, unless nothing will change.

    Yields a function to call before each change; it raises if another process took the lock over.
    """
    if not getattr(parsed, "apply", False):
        yield lambda: None
        return
    lock = acquire(
        _directory(parsed.directory), patience_s=_PATIENCE_S, watch_s=LEASE_S + _PATIENCE_S
    )
    try:
        yield lock.confirm
    finally:
        del lock


def _apply(directory: Path, steps: Sequence[Step], confirm: Callable[[], None]) -> None:
    """Makes the changes, as long as no job takes the directory over."""
    try:
        apply(directory, steps, guarded(CautiousStorage(), confirm))
    except DirectoryInUseError as error:
        raise _CannotError(f"stopped before the end: {error}") from error


def _print(parsed: argparse.Namespace, outcome: _Outcome, *, applied: bool | None) -> int:
    result, status = outcome.result, outcome.status
    if parsed.json:
        text = as_json(parsed.command, result, exit_status=status, applied=applied)
    else:
        text = as_text(result, applied=applied)
    try:
        sys.stdout.buffer.write(text.encode(errors="backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        sys.stderr.close()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kempnerforge-ckpt",
        description="Inspect, verify, compare and repair checkpoints.",
        epilog="Exit status: 0 all is well, 1 problems or differences found, 2 cannot be done, "
        "3 a job is using the directory, 4 something could not be read.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _looking(commands)
    _changing(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def _looking(commands: "Commands[argparse.ArgumentParser]") -> None:
    listing = _command(commands, "ls", _ls, "list the checkpoints in a directory")
    listing.add_argument("directory", type=_place)
    showing = _command(commands, "show", _show, "show a checkpoint's manifest and files")
    showing.add_argument("path", type=_place)
    verifying = _command(commands, "verify", _verify, "check whether checkpoints are whole")
    verifying.add_argument("path", type=_place, help="a checkpoint, or a directory of checkpoints")
    verifying.add_argument("--deep", action="store_true", help="read and check every byte")
    comparing = _command(commands, "diff", _diff, "compare two checkpoints")
    comparing.add_argument("one", type=_place, metavar="A")
    comparing.add_argument("other", type=_place, metavar="B")


def _changing(commands: "Commands[argparse.ArgumentParser]") -> None:
    repairing = _command(commands, "repair", _repair, "point `latest` at a whole checkpoint")
    repairing.add_argument("directory", type=_place)
    repairing.add_argument("--quick", action="store_true", help="compare sizes, not every byte")
    retaining = _command(commands, "retain", _retain, "delete old checkpoints")
    retaining.add_argument("directory", type=_place)
    retaining.add_argument("--keep-last-n", type=_at_least_one, required=True, metavar="N")
    retaining.add_argument(
        "--deep", action="store_true", help="count only checkpoints whose every byte verifies"
    )
    retaining.add_argument(
        "--keep-step", type=int, action="append", default=[], metavar="STEP", dest="keep_steps"
    )
    retaining.add_argument(
        "--milestones", type=_window, metavar="START:STOP", help="the run's dyn_ckpt_window"
    )
    for parser in (repairing, retaining):
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument(
            "--apply",
            action="store_true",
            help="make the changes, unless a job is using the directory",
        )
        choice.add_argument(
            "--dry-run",
            action="store_false",
            dest="apply",
            help="only print what would be done (default)",
        )


def _command(
    commands: "Commands[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], _Outcome],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def _place(text: str) -> Path:
    try:
        return local_directory(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must keep at least one checkpoint, found {text}")
    return number


def _window(text: str) -> DynamicCheckpointWindow:
    start, _, stop = text.partition(":")
    return DynamicCheckpointWindow(start=int(start), stop=int(stop))


def _status(problems: object, unreadable: object) -> int:
    """Returns 1 for damage, which is certain, even if something else could not be read (4)."""
    return FOUND_PROBLEMS if problems else UNKNOWN if unreadable else FINE


def _ls(parsed: argparse.Namespace) -> _Outcome:
    listing = list_directory(_directory(parsed.directory), CautiousStorage())
    broken = any(row.problem for row in listing.rows) or listing.latest.problem
    unreadable = any(row.unreadable for row in listing.rows) or listing.latest.unreadable
    return _Outcome(result=listing, status=_status(broken, unreadable))


def _show(parsed: argparse.Namespace) -> _Outcome:
    sheet = show(_checkpoint(parsed.path), CautiousStorage())
    status = _status(sheet.row.problem, sheet.row.unreadable or sheet.unreadable)
    return _Outcome(result=sheet, status=status)


def _verify(parsed: argparse.Namespace) -> _Outcome:
    storage = CautiousStorage()
    if _is_checkpoint(_directory(follow_file(parsed.path, storage))):
        checked = check(_checkpoint(parsed.path), storage, deep=parsed.deep)
        return _Outcome(result=checked, status=_status(checked.problems, checked.unreadable))
    found = check_directory(parsed.path, storage, deep=parsed.deep)
    if not found.checkpoints and not (found.latest.problem or found.latest.unreadable):
        raise _CannotError(f"{parsed.path}: contains no checkpoint")
    return _Outcome(result=found, status=_status_of_all(found))


def _status_of_all(found: CheckedDirectory) -> int:
    problems = found.latest.problem or any(checked.problems for checked in found.checkpoints)
    unreadable = found.latest.unreadable or any(one.unreadable for one in found.checkpoints)
    return _status(problems, unreadable)


def _diff(parsed: argparse.Namespace) -> _Outcome:
    found = compare(_checkpoint(parsed.one), _checkpoint(parsed.other), CautiousStorage())
    return _Outcome(result=found, status=_status(found.differs, found.unreadable))


def _repair(parsed: argparse.Namespace) -> _Outcome:
    plan = plan_repair(_directory(parsed.directory), CautiousStorage(), deep=not parsed.quick)
    mended = plan.mended and (parsed.apply or not plan.steps)
    status = UNKNOWN if plan.unreadable else FINE if mended else FOUND_PROBLEMS
    return _Outcome(result=plan, status=status, steps=plan.steps)


def _retain(parsed: argparse.Namespace) -> _Outcome:
    window = parsed.milestones
    policy = RetentionPolicy(keep_last_n=parsed.keep_last_n)
    if window is not None:
        policy = RetentionPolicy(keep_last_n=parsed.keep_last_n, is_milestone=window.contains)
    plan = plan_retention(
        _directory(parsed.directory),
        policy,
        CautiousStorage(),
        deep=parsed.deep,
        protected=parsed.keep_steps,
    )
    return _Outcome(result=plan, status=_status((), plan.unreadable), steps=plan.steps)


def _directory(path: Path) -> Path:
    real = CautiousStorage().resolve(path)
    if real is None:
        raise _CannotError(f"{path}: leads nowhere")
    if not real.is_dir():
        raise _CannotError(f"{path}: is not a directory")
    return path


def _is_checkpoint(path: Path) -> bool:
    names = set(CautiousStorage().names(path))
    signs = {layout.MANIFEST, layout.METADATA, layout.TRAIN_STATE, layout.SHARD_METADATA}
    return bool(names & signs) or layout.parse_step(path.name) is not None


def _checkpoint(path: Path) -> Entry:
    """Returns the checkpoint at a path, which can also be ``latest``, as a link or as a file."""
    path = follow_file(path, CautiousStorage())
    if not _is_checkpoint(_directory(path)):
        raise _CannotError(
            f"{path}: is not a checkpoint; `ls` lists the checkpoints in a directory"
        )
    storage = CautiousStorage()
    real = storage.resolve(path)
    return inspect(path if real is None or storage.read_link(path) is None else real, storage)


if __name__ == "__main__":
    sys.exit(main())
