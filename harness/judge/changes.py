"""The lasting changes of some ranks to the directory."""

from __future__ import annotations

from collections.abc import Iterable

from harness.evidence.operation import Operation
from harness.words import READS

_HARMLESS = frozenset({*READS, "fsync", "sync"})
_MAKING = frozenset({"mkdir", "symlink", "link"})
_REMOVING = frozenset({"unlink", "rmdir"})


def lasting(operations: Iterable[Operation]) -> list[Operation]:
    """The operations that changed something; a name that was made, used and removed is nothing.

    So does who looks whether storage answers, or has a client forget what it remembers.
    """
    made = [one for one in operations if not one.error and not _is_harmless(one)]
    passing = _passing(made)
    return [one for one in made if _changed_name(one) not in passing]


def _passing(operations: list[Operation]) -> frozenset[str]:
    """The names that these operations made and that they removed in the end."""
    there: dict[str, bool] = {}
    touched: set[str] = set()
    for one in operations:
        name = _changed_name(one)
        if one.kind in _MAKING or (one.kind == "open" and one.creates):
            there[name] = True
        elif one.kind in _REMOVING and there.get(name):
            there[name] = False
        elif one.kind in (*_REMOVING, "rename", "exchange"):
            # What was taken away or replaced may have been anybody's.
            touched |= {one.path, one.target or one.path}
    return frozenset(name for name, left in there.items() if not left and name not in touched)


def _is_harmless(operation: Operation) -> bool:
    """Whether it changes no name and no byte, as the open of a file that is there already."""
    opens = operation.kind == "open" and not (operation.creates or operation.truncates)
    return opens or operation.kind in _HARMLESS


def _changed_name(operation: Operation) -> str:
    """The name that an operation makes, removes or changes."""
    return (operation.target or "") if operation.kind == "link" else operation.path
