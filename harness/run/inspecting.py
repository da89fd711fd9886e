"""Finds out, before any scenario runs, whether an implementation can be started at all."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.jobs.registry import job_named
from harness.plan.model import DEFAULT_JOB, Implementation
from harness.promises import ALL, DOCUMENTED, PromiseError, parse_promises

_PROGRAM = "harness.run.inspecting"
_LIMIT_S = 120.0
_MOST_LINES = 20


class ImplementationError(Exception):
    """The implementation cannot be started: its text says where and why."""


def inspect_implementation(
    implementation: Implementation, promises: tuple[str, ...] | None
) -> Implementation:
    """Returns the implementation with its promises: those given, its own, or the documented ones.

    One that is not ours is imported and its manager built once, in a process of its own.

    Raises:
        ImplementationError: That failed, so every scenario would fail in the same way.
    """
    own = None
    if implementation.is_foreign:
        own = _own_promises(implementation)
    default = DOCUMENTED if implementation.is_foreign else ALL
    chosen = promises if promises is not None else own if own is not None else default
    return implementation.model_copy(update={"promises": chosen})


def _own_promises(implementation: Implementation) -> tuple[str, ...] | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", _PROGRAM],
                input=implementation.model_dump_json(),
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=False,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": _search_path()},
            )
        except subprocess.TimeoutExpired:
            raise ImplementationError(
                f"{implementation.name} was not built within {_LIMIT_S:.0f} s"
            ) from None
    answer = _read_answer(done.stdout)
    if answer is None:
        end = "\n".join(done.stderr.rstrip().splitlines()[-_MOST_LINES:])
        raise ImplementationError(
            f"{implementation.name} ended the process that built it, with status "
            f"{done.returncode}:\n{end}"
        )
    if "error" in answer:
        raise ImplementationError(f"{implementation.name} cannot be built: {answer['error']}")
    text = answer["promises"]
    try:
        return None if text is None else parse_promises(text)
    except PromiseError as error:
        raise ImplementationError(f"{implementation.name}, attribute `promises`: {error}") from None


def _inspect() -> None:
    """Builds an implementation in this process: JSON from stdin, and the last line to stdout."""
    gc.disable()  # what it imports is no garbage, and looking for some takes a fifth of its time
    implementation = Implementation.model_validate_json(sys.stdin.read())
    answer = job_named(DEFAULT_JOB).inspect(implementation)
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


def _search_path() -> str:
    """Returns a module path that leads to this harness, from whatever directory it runs in."""
    here = str(Path(__file__).resolve().parents[2])
    rest = [entry for entry in sys.path if entry]
    return os.pathsep.join(dict.fromkeys([here, *rest]))


def _read_answer(text: str) -> dict[str, str | None] | None:
    lines = text.rstrip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


if __name__ == "__main__":
    _inspect()
