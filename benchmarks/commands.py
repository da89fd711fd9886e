"""How fast a training command is tested, beside ckpt-chaos, on the cases of `conformance/`.

    python -m benchmarks.commands --other PATH/TO/ckpt-chaos torch_save_in_place dcp_save_2

Needs `conformance/setup`. Each case is tested by both in turns: by `harness.command` with its usual
budget, and by ckpt-chaos at `--points` crash points, as many at once. A minute is one of the whole
call, with the uninterrupted runs; the rate from states alone stands beside it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from harness.command.trying import CommandTest, TryOptions
from harness.conformance.case import ConformanceCase, read_cases
from harness.conformance.command import ENVIRONMENT, Environment
from harness.run.command.command import Command
from harness.workspace import open_workspace

FOLDER = Path("conformance")
_POINTS = re.compile(r"(\d+) file events -> (\d+) crash points")
AT_ONCE = 3


def by_harness(case: ConformanceCase, variables: dict[str, str]) -> str:
    """Tests a case as `python -m harness try` does; returns a row."""
    workspace = open_workspace(failures=Path("failures").resolve())
    folder = workspace.new_run("benchmark")
    folder.mkdir()
    command = Command(words=case.command, cwd=FOLDER.resolve(), environment=variables)
    options = TryOptions(command=command, result=case.result, at_once=AT_ONCE)
    began = time.monotonic()
    try:
        found = CommandTest(options, folder, lambda _: None).run()
    finally:
        workspace.drop(folder)
        workspace.close()
    whole = time.monotonic() - began
    alone = 60 * found.from_states / max(found.seconds, 1e-3)
    return (
        f"{found.from_states} of {found.states} states and {len(found.tried) - found.from_states} "
        f"faults in {whole:.0f} s: {60 * len(found.tried) / whole:.0f} a minute, "
        f"{alone:.0f} from states alone"
    )


def by_other(other: Path, case: ConformanceCase, variables: dict[str, str], points: int) -> str:
    """Tests a case with ckpt-chaos; returns a row."""
    words = [word.replace("{dir}", "{out}") for word in case.command]
    options: list[str] = []
    if words[:2] == ["torchrun", "--nproc-per-node"]:  # it starts ranks itself
        options, words = ["--ranks", words[2]], ["python", *words[3:]]
    with tempfile.TemporaryDirectory() as work:
        began = time.monotonic()
        done = subprocess.run(
            [str(other), "run", "--max-points", str(points), "--jobs", str(AT_ONCE),
             "--work", work, "--timeout", "300", *options, "--", *words],
            cwd=FOLDER, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        whole = time.monotonic() - began
    found = _POINTS.search(done.stdout)
    if found is None:
        return f"no result: {done.stdout[-400:]}{done.stderr[-400:]}"
    tried = int(found[2])
    return (
        f"{tried} points at {found[1]} file events in {whole:.0f} s: "
        f"{60 * tried / whole:.1f} a minute"
    )


def main() -> None:
    """Measure the cases that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, help="the command of ckpt-chaos; else only ours")
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("cases", nargs="+")
    parsed = parser.parse_args()
    cases, environment = read_cases(FOLDER), Environment(FOLDER / ENVIRONMENT)
    print(f"load before: {os.getloadavg()[0]:.1f}")
    for name in parsed.cases:
        variables = environment.variables(cases[name].environment)
        print(f"{name}, harness: {by_harness(cases[name], variables)}", flush=True)
        if parsed.other is not None:
            row = by_other(parsed.other.resolve(), cases[name], variables, parsed.points)
            print(f"{name}, ckpt-chaos: {row}", flush=True)


if __name__ == "__main__":
    main()
