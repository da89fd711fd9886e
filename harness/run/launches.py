"""Starts the runs of a scenario: each by its own job launcher, or several by one launcher."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.plan.model import Plan
from harness.run.command.host import CommandHost
from harness.run.launch.launch import Launch
from harness.run.launch.launcher import Launcher
from harness.run.launch.local import LocalLaunch
from harness.run.launch.rank_shims import RankShims
from harness.run.server import Start
from harness.run.services import Services
from harness.system.host import Host


class CommandLaunches:
    """The starts of one scenario of a command."""

    def __init__(
        self, plan: Plan, directory: Path, host: CommandHost, *, mounts: str | None
    ) -> None:
        self._plan, self._directory, self._host, self._mounts = plan, directory, host, mounts

    def goes_on_to(self, run: int) -> bool:  # noqa: ARG002
        """Whether a run can take place: each is a start of its own."""
        return True

    def launch(self, run: int) -> Launch:
        """Start the command."""
        return self._host.launch(self._plan, run, self._directory, self._mounts)

    def close(self) -> None:
        """Has nothing to end."""


class Launches:
    """The starts of one scenario. What a launcher started ends when the next one starts."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        services: Services,
        *,
        mounts: str | None = None,
        hosts: Mapping[str, Host] | None = None,
    ) -> None:
        self._plan, self._directory, self._mounts = plan, directory, mounts
        self._hosts = hosts or {}
        self._server = services.server()
        self._cluster = services.cluster() if plan.launcher.kind == "slurm" else None
        self._launcher: Launcher | None = None

    def goes_on_to(self, run: int) -> bool:
        """Whether a run can take place: a launcher that has ended restarts no rank."""
        covered = self._launcher is not None and run <= self._launcher.last_run
        return not covered or (self._launcher is not None and self._launcher.over is None)

    def launch(self, run: int) -> Launch:
        """Start the ranks of a run, or let the previous run's launcher continue with it."""
        strikes = self._plan.runs[run].strikes
        reads = any(strike.point.phase == "load" for strike in strikes)
        if self._plan.launcher.is_local:
            return LocalLaunch(self._fork_job_launcher(run, reads=reads))
        if self._plan.launcher.first_run(run) == run:
            self._begin(run)
        assert self._launcher is not None, "the first run of a launcher begins it"
        size = self._plan.workload_of(run).world.size
        return RankShims(self._launcher, run=run, ranks=size, reads=reads)

    def _begin(self, run: int) -> None:
        self.close()
        self._launcher = Launcher(
            self._directory, last_run=run + self._plan.launcher.restarts, cluster=self._cluster
        )
        self._launcher.begin(self._fork_job_launcher(run, reads=False))

    def _fork_job_launcher(self, run: int, *, reads: bool) -> socket.socket:
        wanted = Start(
            directory=self._directory,
            run=run,
            world=self._plan.workload_of(run).world,
            reads=reads,
            implementation=self._plan.implementation,
            mounts=self._mounts,
            hosts=tuple(self._hosts[name] for name in self._plan.hosts_of(run) if self._hosts),
            slurm=None if self._launcher is None else self._launcher.slurm,
            launcher=self._plan.launcher,
        )
        return self._server.start(wanted)

    def close(self) -> None:
        """End the current launcher."""
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None


@contextmanager
def launches(
    plan: Plan,
    directory: Path,
    services: Services,
    *,
    mounts: str | None = None,
    hosts: Mapping[str, Host] | None = None,
    command: CommandHost | None = None,
) -> Iterator[Launches | CommandLaunches]:
    """Provides the starts of one scenario; nothing of them is left when it is over.

    `mounts` is the namespace with the mounts of the ranks' hosts, or of a disk whose power is cut.
    `command` is given if the job is a command.
    """
    found: Launches | CommandLaunches
    if command is not None:
        found = CommandLaunches(plan, directory, command, mounts=mounts)
    else:
        found = Launches(plan, directory, services, mounts=mounts, hosts=hosts)
    try:
        yield found
    finally:
        found.close()
