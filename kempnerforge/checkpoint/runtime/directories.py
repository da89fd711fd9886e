"""The directory that a user names."""

import os
import re
from pathlib import Path

__all__ = ["local_directory"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII | re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)


def local_directory(name: str | Path) -> Path:
    """The path that a name of a directory stands for, wherever a user gives one.

    ``~`` and ``~user`` at its beginning and ``$NAME`` and ``${NAME}`` in it are replaced, as by a
    shell. Absolute, so that a later ``chdir`` does not move it.

    Raises:
        ValueError: It is empty; or a URL, which as a path would name a directory beside the
            program; or names a variable that is not set, or a user that is not there; or a
            directory with that name as it is written stands in the working directory.
    """
    written = str(name)
    if not written:
        raise ValueError("the name of a checkpoint directory is empty")
    if _URL.match(written):
        raise ValueError(f"{name} is a URL; checkpoints are written to mounted file systems")
    literal = Path(written).absolute()
    expanded = _expand_home(_VARIABLE.sub(_value_of_variable, written)).absolute()
    if expanded != literal and os.path.lexists(literal):
        # Earlier versions took such a name as it is written, and a run must not begin elsewhere.
        raise ValueError(
            f"{written} stands for {expanded}, and {literal} is there as well; give the whole path "
            "of the one that is meant"
        )
    return expanded


def _value_of_variable(match: re.Match[str]) -> str:
    variable = match[1] or match[2]
    if not os.environ.get(variable):
        raise ValueError(f"{match.string} names {match[0]}, and {variable} is not set or empty")
    return os.environ[variable]


def _expand_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} names a home directory that is not known") from error
