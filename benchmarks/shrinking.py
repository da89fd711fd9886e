"""How small mutants become by shrinking, in how many candidates and seconds, with two at once.

    python -m benchmarks.shrinking [NAME ...] [--workers 2] [--seconds 110]

`tests/mutants/large.py` has the starts, and sizes known to be enough. Booting the fork servers is
counted. The processor seconds, of all processes together, are the cost if other work keeps the
cores busy: two idle cores need at least half of them.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

from harness.plan.model import Implementation
from harness.report.failure import scenario_text
from harness.search.pool import Pool
from harness.search.shrink.reduce import SHRINK_S, reduce_failure
from harness.search.shrink.runner import Together
from harness.workspace import open_workspace
from tests.mutants.large import LARGE, Large, measure

ROOT = Path(__file__).resolve().parents[1]


def shrink(case: Large, workers: int, seconds: float) -> None:
    """Shrink one and print its line and its text."""
    before_s = _processors_s()
    implementation = Implementation(name=case.bug.implementation, path=str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        workspace = open_workspace(failures=Path(folder))
        with closing(workspace), Pool(workspace, workers, implementation=implementation) as pool:
            found = reduce_failure(case.scenario, case.signature, Together(pool), seconds=seconds)
    processors_s = _processors_s() - before_s
    tried = found.shrunk.tried if found.shrunk else 0
    sizes = " | ".join(
        "{} / {} / {} / {}".format(*astuple(size))
        for size in (measure(case.scenario), case.smallest, measure(found.scenario))
    )
    state = f"{found.seconds:.0f}" if found.proof else "not seen again"
    over = "" if found.shrunk and found.shrunk.is_complete else ", time was over"
    spent = f"{tried} | {state}{over} | {processors_s:.0f}"
    print(f"| `{case}` | `{case.bug.violates}` | {sizes} | {spent} |")
    print(scenario_text(found.scenario), flush=True)


def _processors_s() -> float:
    """Returns the processor time of all descendants that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table that docs/shrinking.md shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="some of the bugs; default: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=SHRINK_S)
    asked = parser.parse_args()
    print("ranks / runs / faults and actions / steps")
    print("| bug | broken | start | enough | shrunk | candidates | s | processor s |")
    print("|---|---|---|---|---|---|---|---|")
    for case in LARGE:
        if not asked.names or str(case) in asked.names:
            shrink(case, asked.workers, asked.seconds)


if __name__ == "__main__":
    main()
