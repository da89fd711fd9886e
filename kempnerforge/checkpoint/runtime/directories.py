"""Expands the directory name that a user gives."""

import os
import re
from pathlib import Path

__all__ = ["local_directory"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII | re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)


def local_directory(name: str | Path) -> Path:
    """Returns the absolute path for a directory name that a user has given.

    Expands ``~`` and ``~user`` at the beginning, and ``$NAME`` and ``${NAME}`` anywhere, as a shell
    does. The path is absolute so that a later ``chdir`` does not change its meaning.

    Raises:
        ValueError: The name is empty; or is a URL, which as a path would name a directory below the
            working directory; or names a variable that is not set or a user that does not exist; or
            a directory with the unexpanded name exists in the working directory.
    """
    written = str(name)
    if not written:
        raise ValueError("the name of a checkpoint directory is empty")
    if _URL.match(written):
        raise ValueError(f"{name} is a URL; checkpoints are written to mounted file systems")
    literal = Path(written).absolute()
    expanded = _expand_home(_VARIABLE.sub(_value_of_variable, written)).absolute()
    if expanded != literal and os.path.lexists(literal):
        # Earlier versions did not expand names, and a run must not restart in another place.
        raise ValueError(
            f"{written} stands for {expanded}, but {literal} exists as well; give the full path of "
            "the one you mean"
        )
    return expanded


def _value_of_variable(match: re.Match[str]) -> str:
    variable = match[1] or match[2]
    if not os.environ.get(variable):
        raise ValueError(f"{match.string} names {match[0]}, but {variable} is not set or is empty")
    return os.environ[variable]


def _expand_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} names an unknown home directory") from error
