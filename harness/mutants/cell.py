"""One cell of the table: the outcome of one scenario with one manager."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

Key = tuple[str, str]
"""A manager and a scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantCell:
    """`broken` are the properties that were violated and the guards that failed."""

    manager: str
    scenario: str
    outcome: str
    broken: tuple[str, ...] = ()
    details: str = ""

    @property
    def key(self) -> Key:
        """The manager and the scenario of the cell."""
        return self.manager, self.scenario

    @property
    def is_caught(self) -> bool:
        """Whether the manager was found out. INVALID proves nothing, so it catches nothing."""
        return self.outcome not in ("PASS", "INVALID")

    @property
    def is_alarm(self) -> bool:
        """Whether a control was accused; INVALID counts, too."""
        return self.outcome != "PASS"


def read_cells(path: Path) -> dict[Key, MutantCell]:
    """Reads the cells of a file, the last one for each key; none if there is no file."""
    if not path.exists():
        return {}
    found: dict[Key, MutantCell] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        cell = MutantCell(**{**value, "broken": tuple(value["broken"])})
        found[cell.key] = cell
    return found


def add_cells(path: Path, cells: Iterable[MutantCell]) -> None:
    """Appends cells to a file."""
    with path.open("a", encoding="utf-8") as file:
        for cell in cells:
            file.write(json.dumps(asdict(cell)) + "\n")
