"""Refuses a command that cannot be tested, in a sentence that says what to try."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.content import Bytes
from harness.disk.tree import File, FileSystem
from harness.evidence.operation import Operation
from harness.run.command.command import CommandError
from harness.run.command.last_words import last_words
from harness.run.command.starting import Ended, Resuming
from harness.words import DIRECTORY_WORD

_LAST_CHARACTERS = 2000
_HINTS = {
    r"EOFError: EOF when reading a line": (
        "It asks for input and gets none: give it its answers in its words."
    ),
    r"Name or service not known|[Nn]ame resolution|Network is unreachable|Connection refused": (
        "It asks for something on a network and does not get it: is it there without a fault, and "
        "can what it downloads be there before?"
    ),
}
"""Sentences for what is known in the output of a command that fails by itself."""


def refuse_failed(ended: Ended, limit_s: float, mappings: Sequence[str] = ()) -> None:
    """Raises CommandError if the uninterrupted command did not end in order.

    `mappings` are the files that it was not allowed to map into memory.
    """
    if ended.hung:
        raise CommandError(
            f"the command did not end within {limit_s:.0f} s: give it fewer steps, or more time "
            "with `--limit SECONDS`"
        )
    if ended.failed and mappings:
        raise CommandError(
            f"it writes to {', '.join(mappings)} through a shared mapping (mmap), and fails "
            "without one: the supervisor sees calls, and cannot say what a kill would leave of "
            "such writes"
        )
    if ended.failed:
        rank = ended.first_failed
        log = ended.log(rank)
        why = [last_words(log), *(hint for known, hint in _HINTS.items() if re.search(known, log))]
        raise CommandError(
            f"the command fails by itself, with status {ended.statuses[rank]}: {' '.join(why)}\n"
            f"Its output ends:\n{log[-_LAST_CHARACTERS:]}"
        )


def refuse_unusable(resuming: Resuming, directory: Path) -> None:
    """Raises CommandError if the words of a resume name what the command never leaves."""
    if not resuming.can_begin(directory):
        missing = ", ".join(f"{DIRECTORY_WORD}/{one}" for one in resuming.needs)
        raise CommandError(
            f"`--resume` names {missing}, which an uninterrupted run does not leave: name what it "
            "leaves"
        )


def refuse_empty(ended: Ended) -> None:
    """Raises CommandError if the uninterrupted command left nothing to look at."""
    if ended.directory.exists() and any(ended.directory.iterdir()):
        return
    if ended.leaked:
        raise CommandError(
            "the command ends in order and leaves nothing in its directory, but it leaves "
            f"{', '.join(ended.leaked)}: it must go on until its work is done, so start what works "
            "in the foreground"
        )
    raise CommandError(
        "the command ends in order and leaves nothing in its directory: is "
        f"{DIRECTORY_WORD} the right word of it, does it save within its run, and is the directory "
        "still there at its end?"
    )


def refuse_moving(operations: Iterable[Operation]) -> None:
    """Raises CommandError if files came into the directory, or left it, with their bytes.

    Those bytes were written where nobody watches.
    """
    for one in operations:
        names = (one.path, one.target or "")
        outside = [name for name in names if name.startswith("/")]
        if one.kind in ("rename", "exchange", "link") and not one.error and len(outside) == 1:
            raise CommandError(
                f"it moves files between {DIRECTORY_WORD} and {outside[0].rpartition('/')[0]}, "
                "which is not watched: give it a place for such files below the directory"
            )


def unexplained(operations: Iterable[Operation], written: Bytes, directory: Path) -> str:
    """Returns a sentence if a file is not as the operations of the run would have left it.

    States would be rebuilt without the bytes that were not seen. Sizes are compared, and no bytes.
    """
    files = FileSystem()
    for one in operations:
        files.apply(one, written)
    rebuilt = {path: node.content.size for path, node in files.nodes() if isinstance(node, File)}
    there = {
        str(path.relative_to(directory)): path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    for name in sorted(rebuilt.keys() | there.keys()):
        if rebuilt.get(name) != there.get(name):
            return (
                f"the states that it can leave: not all that it does to {DIRECTORY_WORD}/{name} is "
                f"seen, which has {there.get(name, 0)} bytes, and {rebuilt.get(name, 0)} by its "
                "operations. Redirected output (`> file`) is not seen, for one: let it go "
                "elsewhere, or let the program open the file itself"
            )
    return ""
