"""The program that starts the ranks of a job."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from harness.part import Part
from harness.scenario.errors import choices

Kind = Literal["local", "torchrun", "slurm"]
"""The programs that can start the ranks."""


class LauncherSettings(Part):
    """The harness's own fork server, or a launcher that people use.

    With `restarts: n`, one start of the launcher covers n + 1 runs: when a run fails, the launcher
    itself starts the ranks again, and that is the next run of the scenario.
    """

    kind: Kind = "local"
    restarts: int = Field(0, ge=0, description="runs that the launcher starts by itself")

    @property
    def is_local(self) -> bool:
        """Whether the harness forks the ranks itself."""
        return self.kind == "local"

    def first_run(self, run: int) -> int:
        """Returns the first of the runs that the same start of the launcher covers."""
        return run - run % (self.restarts + 1)


def _spelled_out(value: Any) -> Any:
    """Lets a bare word name the kind."""
    if isinstance(value, str) and value not in get_args(Kind):
        raise ValueError(choices(value, get_args(Kind)))
    return {"kind": value} if isinstance(value, str) else value


AnyLauncher = Annotated[
    LauncherSettings, BeforeValidator(_spelled_out, json_schema_input_type=LauncherSettings | Kind)
]
