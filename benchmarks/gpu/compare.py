"""Compares the verdicts of the GPU with those of the CPU: two sets of JUnit files, by test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.matrix.results import read_results


def compare(cpu: Iterable[Path], cuda: Iterable[Path]) -> dict[str, Any]:
    """Counts how many agree, and lists which differ and which ran on one side only."""
    one, other = _verdicts(cpu), _verdicts(cuda)
    both = sorted(one.keys() & other.keys())
    ran = [name for name in both if not _skipped(one[name]) and not _skipped(other[name])]
    differ = [name for name in ran if one[name] != other[name]]
    return {
        "compared": len(ran),
        "agree": len(ran) - len(differ),
        "differ": {name: {"cpu": one[name], "cuda": other[name]} for name in differ},
        "one_side_only": len(one) + len(other) - 2 * len(ran),
    }


def describe_comparison(found: dict[str, Any]) -> str:
    """Formats the result for people."""
    lines = [
        f"{found['compared']} tests ran on both: {found['agree']} agree, "
        f"{len(found['differ'])} differ; {found['one_side_only']} results have no counterpart"
    ]
    lines += [
        f"  {name}: cpu {verdict['cpu']}, cuda {verdict['cuda']}"
        for name, verdict in found["differ"].items()
    ]
    return "\n".join(lines)


def _verdicts(files: Iterable[Path]) -> dict[str, str]:
    """Returns the last verdict of each test."""
    found = read_results(sorted(files, key=lambda path: path.stat().st_mtime)).values()
    return {"::".join(one.name): _verdict(one.state, one.why) for one in found}


def _verdict(state: str, why: str) -> str:
    """Returns the outcome of a failing test; the reason of a skip does not count."""
    return why if state == "failing" else state


def _skipped(verdict: str) -> bool:
    return verdict == "skipped"
