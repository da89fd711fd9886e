"""What a well-formed scenario can ask in vain to happen between two runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.scenario.at_rest import Foreign, Latest, Relocate
from harness.scenario.errors import Place
from harness.scenario.schema import Scenario

_TAKEN = re.compile(r"checkpoints|reference|executed|plan\.json|run\d+")
"""Names that a run directory has already."""
_CHECKPOINTERS = re.compile(r"latest|step_\d+")


def find_impossible_between(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Every action that cannot be done."""
    relocated = 0
    last = max(run.until_step for run in scenario.runs)
    for number, run in enumerate(scenario.runs):
        place: Place = ("runs", number, "before")
        if run.before and not number:
            yield place, "the first run finds an empty directory: nothing can happen to it"
        for n, action in enumerate(run.before):
            if isinstance(action, Relocate):
                relocated += 1
                if relocated > 1:
                    yield (*place, n), "the directory is relocated once in a scenario"
                if _TAKEN.fullmatch(name := action.relocate.to):
                    yield (*place, n, "relocate", "to"), f"{name} is taken; choose another name"
            elif isinstance(action, Foreign) and _CHECKPOINTERS.fullmatch(action.foreign.path):
                text = f"{action.foreign.path} is the name of a checkpointer, not a foreign one"
                yield (*place, n, "foreign", "path"), text
            elif isinstance(action, Latest) and (action.latest.step or 0) > last:
                text = f"step {action.latest.step} is never saved: the runs end at step {last}"
                yield (*place, n, "latest", "step"), text
