"""How long a run can be silent before it counts as hung: measured on this machine, not fixed.

A run is hung when no rank has recorded anything for that long. The reference run of the same
workload is the measure: none of its training steps, starts and ends lasts longer than the whole of
it, and a save or a load of these small models lasts less. Waits that the scenario itself causes are
added. All of it is counted by the clock of the run (`clock.py`), which ignores the load of the
machine.
"""

from __future__ import annotations

from pathlib import Path

from harness.evidence.evidence import Processes
from harness.evidence.read import read_processes
from harness.plan.model import Plan, RunPlan
from harness.scenario.schema import Checkpoint

FACTOR = 20.0
"""Times the whole reference. Whole runs of nine scenarios took 0.8 to 2.4 times by this clock on a
loaded machine (`docs/outcomes.md` names them), and a silence less; the rest is for slow disks."""
LEAST_S = 20.0
"""A reference takes 1 to 2 s on an idle core. A shorter budget gains nothing, and disks stall."""
REFERENCE_S = 240.0
"""For the reference itself, which nothing strikes: only a broken workload is silent so long."""
MOST_PATIENT = 10.0
"""At most this many times a manager's own deadline, so that a scenario about it does not take
forever."""
SURVIVORS_S = 5.0
"""How long ranks can go on after another has died, as an elastic agent would let them."""
TAKEOVER_S = 60.0
"""Until a job on another host can know that the one before is dead. Half of it is for a lease that
is no longer renewed: etcd, ZooKeeper and Kubernetes keep one for at most that long by default."""
COLD_S = 60.0
"""For a rank that imports torch first: 5 s on idle cores, more if the disk is cold."""
AGENT_S = 35.0
"""Torchrun sends SIGTERM to the survivors of a rank, and SIGKILL after 30 s."""
_LEAST_TRAINING_S = 10.0
PUBLISHED_S = 5.0
"""How long a strike waits for `latest`; a checkpointer that publishes later is struck anyway."""


def silence_s(plan: Plan, number: int, reference: Processes | None) -> float:
    """Returns the budget of one run; a budget in the plan takes precedence.

    `reference` is None if the duration of the reference is unknown.
    """
    run = plan.runs[number]
    if run.deadline_s is not None:
        return run.deadline_s
    measured = REFERENCE_S if reference is None else max(LEAST_S, FACTOR * reference.undelayed_s)
    measured += 0.0 if plan.launcher.is_local else COLD_S
    return measured + _planned_s(plan, run, reference)


def patient(checkpoint: Checkpoint, reference: Processes | None) -> Checkpoint:
    """Returns the settings for this machine: the manager counts wall-clock time.

    Its own deadline grows by the factor by which load had slowed the reference.
    """
    if checkpoint.timeout_s is None or reference is None:
        return checkpoint
    slowed = min(reference.slowed, MOST_PATIENT)
    return checkpoint.model_copy(update={"timeout_s": checkpoint.timeout_s * slowed})


def survivors_s(plan: Plan, reference: Processes | None) -> float:
    """Returns how long the ranks can go on after another has died.

    If the scenario gives the manager a deadline, that long and a little more: a rank that still
    waits then waits too long. Another launcher ends the survivors itself, and gets the time to do
    so.
    """
    if plan.checkpoint is None:
        return SURVIVORS_S
    own_s = 0.0 if plan.launcher.is_local else AGENT_S
    return own_s + SURVIVORS_S + (patient(plan.checkpoint, reference).timeout_s or 0.0)


def read_reference(directory: Path) -> Processes | None:
    """Returns how the reference of a run directory went; None for the reference itself."""
    try:
        return read_processes(directory / "reference")
    except FileNotFoundError:
        return None


def _planned_s(plan: Plan, run: RunPlan, reference: Processes | None) -> float:
    """Returns for how many seconds the scenario itself can keep a rank silent."""
    manager_s = None
    if plan.checkpoint is not None:
        manager_s = patient(plan.checkpoint, reference).timeout_s
    faults = [strike.fault for strike in run.strikes]
    strikes_s = sum(fault.may_be_silent_s() for fault in faults)
    parted = any(fault.parts_ranks for fault in faults)
    parted_s = training_limit_s(manager_s or 0.0) if parted else 0.0
    strikes_s += TAKEOVER_S if plan.hosts else 0.0
    return (manager_s or 0.0) + strikes_s + PUBLISHED_S + parted_s


def training_limit_s(manager_s: float) -> float:
    """Returns how long the collectives of training wait for a rank when a cable can be pulled.

    Long enough for the checkpoint manager to give up first, and for TCP to resume after an outage:
    it retries after 0.2 s, and then after twice as long each time.
    """
    return _LEAST_TRAINING_S + 2 * manager_s
