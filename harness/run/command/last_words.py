"""Finds the line in the output of a failed command that says why it failed."""

from __future__ import annotations

import re

_FIRST_FAILURE = re.compile(r"\] failed \(exitcode: (-?\d+)\) local_rank: (\d+) ")
"""The line in which torchrun names the rank that failed first; its own traceback follows."""
_OF_TORCHRUN = re.compile(r"[EIW]\d{4} [\d:.]+ \d+ torch/distributed/")


def last_words(text: str) -> str:
    """Returns the last line of an output, or of the rank that torchrun saw fail first.

    Empty if the output is.
    """
    failure = _FIRST_FAILURE.search(text)
    if failure is None:
        return _last(text.splitlines())
    status, rank = failure.groups()
    lines = [line for line in text[: failure.start()].splitlines() if not _OF_TORCHRUN.match(line)]
    prefix = f"[rank{rank}]: "  # of a rank that has made its process group
    own = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    said = "" if status.startswith("-") else _last(own or lines)
    return f"rank {rank}: {said or f'it ended with {status}'}"


def _last(lines: list[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
