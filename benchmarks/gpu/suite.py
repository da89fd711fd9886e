"""Runs scenarios in a pytest of its own, within a time limit, and packs the failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.matrix.results import read_results

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 540.0
"""Of the ten minutes of a call; the rest is for starting, ending and packing."""
_END_S = 40.0
"""For the tests that are under way when the time is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """Which scenarios, where, how many at once, for how long, and the variables of the run."""

    step: str
    device: str
    tests: Sequence[str]
    workers: int
    environment: dict[str, str]
    limit_s: float = LIMIT_S


def collect(device: str, *places: str) -> tuple[str, ...]:
    """Returns the tests of the scenarios in files and folders, in order."""
    words = [*places, "--collect-only", "-q", "--device", device]
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if listed.returncode:
        raise SystemExit(f"scenarios cannot be collected:\n{listed.stdout}{listed.stderr}")
    return tuple(line for line in listed.stdout.splitlines() if "::" in line)


def part(tests: Sequence[str], number: int, of: int) -> tuple[str, ...]:
    """Returns one of several parts of about equal duration: every n-th test."""
    if not 1 <= number <= of:
        raise SystemExit(f"part {number} of {of}: possible are 1 to {of}")
    return tuple(tests[number - 1 :: of])


def left(tests: Sequence[str], results: Iterable[Path]) -> tuple[str, ...]:
    """Returns the tests that did not pass in any of these JUnit files."""
    passed = {
        one.name
        for path in results
        for one in read_results([path]).values()
        if one.state == "passed"
    }
    return tuple(test for test in tests if tuple(test.replace("/", ".").split("::")) not in passed)


def run(asked: SuiteOptions, out: Path) -> dict[str, Any]:
    """Runs the tests; leaves `STEP.xml`, `STEP.log` and failures in `out`; returns a summary."""
    if not asked.tests:
        raise SystemExit(f"{asked.step}: no test is left to run")
    out.mkdir(parents=True, exist_ok=True)
    junit, log = out / f"{asked.step}.xml", out / f"{asked.step}.log"
    words = ["-n", str(asked.workers), "--device", asked.device, "--junit-xml", str(junit), "-rs"]
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *asked.tests, *words],
            cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **asked.environment},
            start_new_session=True,
        )  # fmt: skip
        in_time = _wait(process, asked.limit_s)
    results = read_results([junit]).values() if junit.exists() else ()
    states = Counter(result.state for result in results)
    _pack_failures(out / f"{asked.step}-failures.tar.gz")
    return {
        "device": asked.device,
        "environment": asked.environment,
        "tests": len(asked.tests),
        "states": dict(states),
        "not_run": len(asked.tests) - sum(states.values()),
        "skipped": dict(Counter(one.why for one in results if one.state == "skipped")),
        "failing": sorted(
            "::".join(one.name) + f": {one.why}" for one in results if one.state == "failing"
        ),
        "seconds": round(time.monotonic() - began, 1),
        "in_time": in_time,
    }


def describe_suite(found: dict[str, Any]) -> str:
    """Formats the result for people."""
    states = ", ".join(f"{number} {state}" for state, number in sorted(found["states"].items()))
    lines = [
        f"{found['tests']} tests on {found['device']} in {found['seconds']} s: {states or 'none'}, "
        f"{found['not_run']} not run" + ("" if found["in_time"] else " (the time was up)")
    ]
    lines += [f"  {number} skipped: {why}" for why, number in found["skipped"].items()]
    lines += [f"  failing: {one}" for one in found["failing"]]
    return "\n".join(lines)


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Whether it ended in time; otherwise it is asked to end, so that it leaves results."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    else:
        return True
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return False


def _pack_failures(target: Path) -> None:
    """Packs only the failure files: run directories are large, and a file replays them."""
    files = sorted((ROOT / "failures").glob("*.yaml"))
    if files:
        with tarfile.open(target, "w:gz") as archive:
            for path in files:
                archive.add(path, arcname=path.name)
