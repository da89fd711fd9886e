"""Determines which runs follow the reference or a branch, and which ranks correspond to a rank."""

from __future__ import annotations

from collections.abc import Mapping

from harness.evidence.descent import parent_of
from harness.evidence.evidence import Evidence
from harness.evidence.operation import OPERATOR
from harness.evidence.record import SaveBegan, keep_word
from harness.judge.acknowledgements import acknowledged_steps
from harness.judge.event_logs import records, resumed_steps
from harness.world import World


def follows_reference(evidence: Evidence, run: int) -> bool:
    """Whether this run must equal the reference bit for bit.

    It need not if it, or a run that it continues, has another arrangement of ranks or other freeze
    settings.
    """
    if evidence.plan.workload_of(run) != evidence.plan.workload:
        return False
    parent = parent_of(evidence, run)
    return parent is None or follows_reference(evidence, parent)


def saved_words(evidence: Evidence, run: int, step: int) -> frozenset[str]:
    """Returns the words with which a checkpoint of `step` may have been saved that `run` loads."""
    made_by = _branch(evidence, run).get(step, frozenset())
    if not made_by or _may_take_any(evidence, run):
        made_by = frozenset(range(max(run, 1)))
    return frozenset(keep_word(step, one) for one in made_by)


def _branch(evidence: Evidence, run: int) -> Mapping[int, frozenset[int]]:
    """Returns which runs have saved each step, without saves that were abandoned before `run`.

    A run that was sent back to an older step abandons later steps with its first durable save;
    until then only the operator's choice says which branch counts.
    """
    branch: dict[int, frozenset[int]] = {}
    background = evidence.plan.in_background
    for number, earlier in enumerate(evidence.runs[:run]):
        begun = {
            record.step
            for event_log in earlier.event_logs
            for record in records(event_log, SaveBegan)
        }
        taken = [step for step in resumed_steps(earlier) if step is not None]
        durable = acknowledged_steps(earlier, background=background)
        if taken and durable and _may_take_any(evidence, number):
            branch = {step: runs for step, runs in branch.items() if step <= max(taken)}
        for step in begun:
            branch[step] = branch.get(step, frozenset()) | {number}
    return branch


def _may_take_any(evidence: Evidence, run: int) -> bool:
    """Whether an operator, or the run's own settings, have chosen what it resumes from."""
    plan = evidence.plan.runs[run]
    acted = run > 0 and any(one.rank == OPERATOR for one in evidence.runs[run - 1].operations)
    return bool(plan.before) or plan.load_step is not None or acted


def counterpart(rank: int, here: World, there: World) -> int:
    """Returns the rank that reads the same share of a batch; the last stage replaces missing ones.

    If the data-parallel degree differs there is no such rank, and any rank of the stage is as good
    as another.
    """
    stage = min(here.stage_of(rank), there.pp - 1)
    share = here.data_rank_of(rank) % there.degree
    return stage * there.stage_size + share * there.tp + rank % here.tp % there.tp


def same_shard(rank: int, here: World, there: World) -> tuple[int, ...]:
    """Returns the ranks of all stages that hold the same shard of what their stage holds.

    Both arrangements have the same ranks inside of a stage.
    """
    shard = rank % here.stage_size
    return tuple(stage * there.stage_size + shard for stage in range(there.pp))
