"""Does what a plan wants done to the checkpoint directory between two runs, and proves it.

Every action must change the directory, which is listed before and after each one. The first action
that finds nothing to hit, or changes nothing, is the last; the run after it does not take place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.evidence.evidence import AtRest, DirectoryEntry, Done
from harness.evidence.operation import Operation
from harness.evidence.write import list_entries
from harness.faults.actions import Relocate
from harness.layouts.base import Layout
from harness.plan.model import EXECUTED, OperatorAction
from harness.run.operator import ByteLog, DirectoryOperator
from harness.run.operator_actions import ActionContext, NothingToDoError, do


def do_at_rest(
    actions: Sequence[OperatorAction],
    root: Path,
    earlier: Sequence[Operation],
    written: ByteLog,
    layout: Layout,
) -> AtRest:
    """Do the actions one after the other; their bytes are added to `written`.

    `earlier` holds the operations of earlier runs.
    """
    operator = DirectoryOperator(root, written)
    done: list[Done] = []
    behind: dict[str, DirectoryEntry] = {}
    (root.parent / EXECUTED).mkdir(exist_ok=True)
    for action in actions:
        done.append(_do(action, operator, earlier, layout))
        if isinstance(action.action, Relocate):
            behind = list_entries(root)
        if done[-1].problem is not None:
            break
    return AtRest(
        done=tuple(done),
        written=written,
        after=list_entries(operator.root),
        behind=behind,
    )


def _do(
    action: OperatorAction,
    operator: DirectoryOperator,
    earlier: Sequence[Operation],
    layout: Layout,
) -> Done:
    word, first = action.action.word, len(operator.operations)
    before, old = list_entries(operator.root), operator.root
    context = ActionContext(
        operator=operator,
        choice=action.choice,
        marker=operator.root.parent / EXECUTED / action.id,
        earlier=earlier,
        layout=layout,
    )
    paths: tuple[str, ...] = ()
    problem: str | None = None
    try:
        paths = do(context, word, getattr(action.action, word))
        operator.sync()
    except NothingToDoError as error:
        problem = str(error)
    moved = operator.root != old
    if problem is None and (list_entries(operator.root) == before) is not moved:
        problem = "changed nothing" if not moved else "the new directory differs from the old one"
    return Done(
        action_id=action.id,
        action=word,
        paths=paths,
        operations=tuple(operator.operations[first:]),
        problem=problem,
    )
