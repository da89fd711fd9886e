"""One trial: a plan is run and judged; its run directory stays until it is dropped or kept.

Whatever runs a job and needs the result does so here: scenarios, strikes, candidates of a shrink,
drawn scenarios, mutants, starts from a crash state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from harness.evidence.evidence import Evidence
from harness.evidence.read import read_evidence
from harness.judge.judge import Judgement, judge
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.beginning import Beginning
from harness.run.command.command import CommandError
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.devices import count_gpus
from harness.scenario.read import check_source
from harness.scenario.source import Source
from harness.workspace import Workspace, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The resources to run jobs in this process, and the manager to run them with."""

    services: Services
    workspace: Workspace
    implementation: Implementation = field(default_factory=Implementation)
    gpus: int = field(default_factory=count_gpus)

    def plan_of(self, source: Source) -> Plan:
        """Returns the plan of a scenario that is in a file, or could be."""
        scenario = check_source(source, gpus=self.gpus)
        return make_plan(
            scenario, source=source.path, implementation=self.implementation, gpus=self.gpus
        )

    def baseline(self, plan: Plan) -> Evidence:
        """Returns the evidence of an unstruck plan, run once for all workers of a session."""
        digest = hashlib.blake2b(plan.model_dump_json().encode(), digest_size=12).hexdigest()

        def produce(folder: Path) -> None:
            execute(plan, folder / "run", self.services)

        return read_evidence(self.services.reference(f"baseline-{digest}", produce) / "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A plan that was run, with the result."""

    evidence: Evidence
    judgement: Judgement
    workspace: Workspace

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return self.judgement.outcome is Outcome.PASS

    def drop(self) -> None:
        """Remove the run directory."""
        self.workspace.drop(Path(self.evidence.directory))

    def keep(self, name: str) -> Path:
        """Move the run directory to the failures under this name; returns its new place."""
        return self.workspace.keep(Path(self.evidence.directory), name)


def try_plan(
    bench: Bench, plan: Plan, *, name: str | None = None, beginning: Beginning | None = None
) -> Trial:
    """Run a plan and judge it. The run directory is kept if the harness itself fails.

    Raises CommandError if the job is a command that cannot be tested.
    """
    name = name or slug(plan.name)
    directory = bench.workspace.new_run(name)
    try:
        evidence = execute(plan, directory, bench.services, beginning)
        judgement = judge(evidence)
    except CommandError:  # nothing has run
        raise
    except BaseException:
        bench.workspace.keep(directory, name)
        raise
    return Trial(evidence=evidence, judgement=judgement, workspace=bench.workspace)
