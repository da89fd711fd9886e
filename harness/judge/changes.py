"""Finds the lasting changes of some ranks to the directory."""

from __future__ import annotations

from collections.abc import Iterable

from harness.evidence.operation import Operation
from harness.words import READS

_HARMLESS = frozenset({*READS, "fsync", "sync"})
_MAKING = frozenset({"mkdir", "symlink", "link"})
_REMOVING = frozenset({"unlink", "rmdir"})


def lasting(operations: Iterable[Operation]) -> list[Operation]:
    """Returns the operations that changed something; not names that were made, used and removed.

    Probes whether storage answers, or of a client's cache, do not count either.
    """
    made = [one for one in operations if not one.error and not _is_harmless(one)]
    passing = _passing(made)
    return [one for one in made if _changed_name(one) not in passing]


def _passing(operations: list[Operation]) -> frozenset[str]:
    """Returns the names that these operations made and finally removed."""
    there: dict[str, bool] = {}
    touched: set[str] = set()
    for one in operations:
        name = _changed_name(one)
        if one.kind in _MAKING or (one.kind == "open" and one.creates):
            there[name] = True
        elif one.kind in _REMOVING and there.get(name):
            there[name] = False
        elif one.kind in (*_REMOVING, "rename", "exchange"):
            # A name that was removed or replaced may have existed before.
            touched |= {one.path, one.target or one.path}
    return frozenset(name for name, left in there.items() if not left and name not in touched)


def _is_harmless(operation: Operation) -> bool:
    """Whether it changes no name and no byte, like the open of an existing file."""
    opens = operation.kind == "open" and not (operation.creates or operation.truncates)
    return opens or operation.kind in _HARMLESS


def _changed_name(operation: Operation) -> str:
    """Returns the name that an operation makes, removes or changes."""
    return (operation.target or "") if operation.kind == "link" else operation.path
