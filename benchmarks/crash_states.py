"""Crash states a second: shared parts beside rebuilding each state from the first operation.

    python -m benchmarks.crash_states [--scenario FILE::LABEL] [--naive 300]

One distributed save job is run and its states are explored in both profiles. A sample of the same
states is rebuilt naively and judged without any caching. Both are timed in this run on one core,
and the trees of the sample must be equal. Then the job is started again from every state that a
resume can distinguish, which gives the other rate.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Literal

from benchmarks.naive_states import Lost, Tree, lost_in, rebuild
from harness.content import Content
from harness.crash.choose import choose
from harness.crash.explore import MOST_AN_INSTANT, Exploration, explore
from harness.crash.instants import Instant, instants
from harness.crash.resume import resume_all
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES, ProfileName
from harness.disk.state import Parts, PartTree
from harness.evidence.evidence import Evidence
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from harness.trial import Bench
from harness.workspace import open_workspace

_ROOT = Path(__file__).parents[1]
_COLUMNS = (
    "profile", "operations", "instants", "states", "distinct", "causes of hits", "s", "states/s",
    "naive states/s", "ratio",
)  # fmt: skip
Sample = list[tuple[Instant, Lost, Tree]]


class _PlainTree:
    """A rebuilt tree, in the form that a layout reads."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def kind(self, path: str) -> Literal["file", "directory", "symlink"] | None:
        """Returns the kind of node at `path`."""
        if path not in self._tree:
            return None
        value = self._tree[path]
        return "directory" if value is None else "symlink" if isinstance(value, str) else "file"

    def names(self, path: str) -> tuple[str, ...]:
        """Returns the names in a directory."""
        prefix = "" if path == "." else f"{path}/"
        below = (one[len(prefix) :] for one in self._tree if one.startswith(prefix))
        return tuple(sorted(one for one in below if "/" not in one))

    def text(self, path: str) -> str:
        """Returns the text of a link."""
        return str(self._tree[path])

    def content(self, path: str) -> Content:
        """Returns the bytes of a file, read as if for the first time."""
        value = self._tree[path]
        data = value if isinstance(value, bytes) else b""
        return Content.of(data, 0, len(data))


def flatten(parts: Parts, tree: int) -> Tree:
    """Rebuilds a tree of shared parts, path by path."""
    looked, found = PartTree(parts, tree), Tree()
    waiting = list(looked.names("."))
    while waiting:
        path = waiting.pop()
        kind = looked.kind(path)
        if kind == "directory":
            found[path] = None
            waiting += [f"{path}/{name}" for name in looked.names(path)]
        else:
            found[path] = looked.text(path) if kind == "symlink" else looked.content(path).read()
    return found


def sample_states(evidence: Evidence, profile: ProfileName, wanted: int) -> Sample:
    """Returns a sample of the states that an exploration judges, with its trees of them."""
    chance, picking = random.Random(0), random.Random(1)
    disk = Disk(PROFILES[profile])
    parts = Parts(disk)
    found: Sample = []
    total = sum(len(run.operations) for run in evidence.runs)
    for instant in instants(evidence, disk):
        choices = choose(disk, PROFILES[profile], instant.change, chance, MOST_AN_INSTANT).found
        for choice in picking.sample(choices, min(len(choices), 1 + 2 * wanted // total)):
            tree = flatten(parts, parts.state(choice))
            found.append((instant, lost_in(disk, choice), tree))
    return picking.sample(found, min(wanted, len(found)))


def _naive_rate(evidence: Evidence, sample: Sample) -> float:
    layout, world = LAYOUTS[DEFAULT], evidence.plan.workload.world
    began = time.process_time()
    for instant, lost, expected in sample:
        tree = rebuild(evidence, instant, lost)
        view = _PlainTree(tree)
        layout.latest(view)
        for name in layout.checkpoints(view):
            layout.defects(view, name, world)
        if tree != expected:
            raise SystemExit(
                f"the two differ after {instant.place} operations of run {instant.run}"
            )
    return len(sample) / (time.process_time() - began)


def _print(found: Exploration, naive: float) -> None:
    rate = found.states / found.seconds
    print(
        f"| {found.profile} | {found.operations} | {found.instants} | {found.states} "
        f"| {found.distinct} | {len(found.hits)} | {found.seconds:.2f} | {rate:.0f} "
        f"| {naive:.0f} | {rate / naive:.0f} |",
        flush=True,
    )


def _plan(where: str, implementation: str | None) -> Plan:
    file, _, label = where.partition("::")
    one = read_file(_ROOT / "scenarios" / file, gpus=0)[label]
    if isinstance(one, ScenarioError):
        raise one
    chosen = Implementation()
    if implementation is not None:
        chosen = Implementation(name=implementation, path=str(_ROOT))
    return make_plan(one.scenario, source=where, implementation=chosen)


def main() -> None:
    """Run the job, print one line per profile, then the rate of real resumes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scenario", default="baseline/every-layout-and-mode.yaml::dp_shard2-async"
    )
    parser.add_argument("--implementation")
    parser.add_argument("--naive", type=int, default=300, help="states to rebuild naively")
    parser.add_argument("--resumes", type=int, default=100, help="at most so many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        workspace = open_workspace(failures=Path(name, "failures"))
        with Services(workspace.shared) as services:
            directory = workspace.new_run("crash-states")
            plan = _plan(options.scenario, options.implementation)
            evidence = execute(plan, directory, services)
            print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
            for profile in ("ordered", "posix"):
                found = explore(evidence, profile=profile)
                sample = sample_states(evidence, profile, options.naive)
                _print(found, _naive_rate(evidence, sample))
            resumed = list(
                resume_all(
                    Bench(services=services, workspace=workspace),
                    found,
                    evidence,
                    limit=options.resumes,
                )
            )
            seconds = sum(one.seconds for one in resumed)
            outcomes = sorted({str(one.judgement.outcome) for one in resumed})
            if resumed:
                print(f"{len(resumed)} resumes: {seconds / len(resumed):.2f} s each, {outcomes}")
            workspace.drop(directory)
        workspace.close()


if __name__ == "__main__":
    main()
