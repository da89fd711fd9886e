"""The promises of an implementation: properties, and parts of them.

Our package promises everything. Another implementation promises what the documented API of
`kempnerforge.checkpoint` says, unless its class has an attribute `promises`, or the command line
says something else. What is not promised is judged all the same, listed as "not promised", and
never red.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.words import PROPERTIES

PARTS = {
    "deadlines": "no rank waits for ever for a rank that died or hung, or for storage that hangs",
    "errors": "all ranks raise the same error, which names the rank and the cause",
    "every_instant": "a checkpoint is whole at every instant, not only while `latest` names it",
    "file_systems": "file systems that lack a feature, answer ESTALE or show names late; reads "
    "that fail for a moment",
    "later_saves": "after a save that failed, training goes on and a later save succeeds",
    "other_ranks": "a checkpoint loads with other data-parallel or tensor-parallel ranks, or other "
    "wrappers",
    "other_stages": "a checkpoint loads where pipeline stages have other layers: another number of "
    "stages, or interleaved ones",
    "power_cuts": "what is acknowledged as durable survives a power cut",
    "prompt": "a checkpoint is visible once it is durable, not with the next call",
    "second_job": "a second job on the same directory is refused",
}
"""The parts of the properties that can be promised one by one."""

ALL = tuple(sorted((*PROPERTIES, *PARTS)))

DOCUMENTED = tuple(sorted(set(PROPERTIES) - {"integrity", "no_code_on_load"}))
"""The properties that follow from the documented API; it promises none of the parts."""

_SETS = {"all": ALL, "documented": DOCUMENTED, "nothing": ()}


class PromiseError(ValueError):
    """A word is neither a property nor a part of one."""


def parse_promises(text: str) -> tuple[str, ...]:
    """Returns the promises that a text lists: `all`, or `documented,power_cuts`, or `all,-errors`.

    Raises PromiseError for an unknown word.
    """
    found: set[str] = set()
    for word in (part.strip() for part in text.split(",") if part.strip()):
        name = word.removeprefix("-")
        if word in _SETS:
            found |= {*_SETS[word]}
        elif name not in ALL:
            possible = ", ".join((*_SETS, *ALL))
            raise PromiseError(f"{name!r} is no promise; possible: {possible}")
        elif name == word:
            found.add(name)
        else:
            found.discard(name)
    return tuple(sorted(found))


def describe_promises(promises: Iterable[str]) -> str:
    """Returns a text that `parse_promises` reads back, as short as possible."""
    found = set(promises)

    def difference(word: str) -> str:
        base = {*_SETS[word]}
        changes = (*sorted(found - base), *(f"-{name}" for name in sorted(base - found)))
        return ",".join((word, *changes))

    return min(map(difference, _SETS), key=len)
