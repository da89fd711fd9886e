"""The known reds of an implementation: which scenarios are red for now, and what they break.

    # Known reds of my.module:Manager, made by --write-known
    async/killed-in-flush.yaml::scenario: [nothing_lost]

With `--known FILE` such a scenario is expected to fail. So a fix turns the suite green, and a new
bug turns it red: in another scenario, or in the same one by breaking something that is not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

Reds = Mapping[str, tuple[str, ...]]
"""The broken properties and failed guards of each scenario that is red."""


class KnownError(Exception):
    """A file is no list of known reds: its text says where and why."""


def read_known(path: Path) -> Reds:
    """Reads a list of known reds. Raises KnownError."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KnownError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise KnownError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise KnownError(
            f"{path}: found a {type(found).__name__}; expected a mapping from scenarios to lists "
            "of what they break, as `--write-known` writes it"
        )
    return {str(name): _names(path, name, broken) for name, broken in found.items()}


def _names(path: Path, scenario: object, broken: object) -> tuple[str, ...]:
    if isinstance(broken, list) and all(isinstance(one, str) for one in broken):
        return tuple(broken)
    raise KnownError(
        f"{path}: {scenario}: found {broken!r}; expected a list such as [nothing_lost]"
    )


def write_known(path: Path, implementation: str, reds: Reds) -> None:
    """Writes a list of known reds, sorted."""
    listed = {name: sorted(reds[name]) for name in sorted(reds)}
    lines = [f"# Known reds of {implementation}, made by --write-known"]
    for name, broken in listed.items():
        text = yaml.safe_dump({name: broken}, default_flow_style=None, width=10**6)
        lines.append(text.rstrip())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def surprises(reds: Reds, scenario: str, broken: Iterable[str]) -> tuple[str, ...]:
    """Returns what a red scenario breaks that is not listed for it; all if it is not listed."""
    return tuple(one for one in broken if one not in reds.get(scenario, ()))
