"""Services that the scenarios of one test session share: fork server, reference runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from filelock import FileLock

from harness.plan.model import CommandPlan
from harness.run.broker import Broker, lease_folder
from harness.run.command.host import CommandHost, run_uninterrupted, write_uninterrupted
from harness.run.command.uninterrupted import Uninterrupted
from harness.run.launch.cluster import Cluster
from harness.run.machine import this_machine
from harness.run.server import ForkServer
from harness.system.limits import raise_descriptor_limit

_MOST_COMMANDS = 4
"""Each has a server with the imports of the command; one that is asked for again is booted anew."""


class Services:
    """The services of one process; several processes can share `root`, and with it the references.

    The server is started when the first run needs it. `broker` is this machine's by default.
    """

    def __init__(self, root: Path, broker: Broker | None = None) -> None:
        self.root = root
        self.broker = broker or Broker(lease_folder(), this_machine())
        self._server: ForkServer | None = None
        self._cluster: Cluster | None = None
        self._commands: dict[str, CommandHost] = {}

    def cluster(self) -> Cluster:
        """Returns a SLURM cluster, started on first use."""
        if self._cluster is None:
            # Not below `root`: a socket address has only 107 bytes. SIGKILL leaves the folder
            # behind.
            found = Cluster(Path(tempfile.mkdtemp(prefix="kempnerforge-slurm-")))
            try:
                found.start()
            except BaseException:
                found.close()
                raise
            self._cluster = found
        return self._cluster

    def server(self) -> ForkServer:
        """Returns the fork server, booted on first use."""
        if self._server is None:
            self.root.mkdir(parents=True, exist_ok=True)
            # The supervisor runs in this process.
            raise_descriptor_limit()
            server = ForkServer(self.root / "server.log")
            try:
                server.wait_until_ready()
            except BaseException:
                server.close()
                raise
            self._server = server
        return self._server

    def shown(self, plan: CommandPlan) -> Path:
        """Returns where the starts of a command see its directory."""
        return self.root / "shown" / plan.key()

    def command(self, plan: CommandPlan, found: Uninterrupted | None = None) -> CommandHost:
        """Returns the host of a command, which is run without a fault on first use.

        `found` is given if that has been done. Raises CommandError if the command cannot be tested.
        """
        key = plan.key()
        if key not in self._commands:
            shown = self.shown(plan)

            def produce(folder: Path) -> None:
                if found is None:
                    run_uninterrupted(plan, folder, shown)
                else:
                    write_uninterrupted(folder, found)

            known = self.reference(f"command-{key}", produce)
            shown.mkdir(parents=True, exist_ok=True)
            raise_descriptor_limit()
            if len(self._commands) == _MOST_COMMANDS:
                self._commands.pop(next(iter(self._commands))).close()
            own = Path(tempfile.mkdtemp(prefix=f"command-{key}-", dir=self.root))
            self._commands[key] = CommandHost(plan, known, shown, own)
        return self._commands[key]

    def reference(self, key: str, produce: Callable[[Path], None]) -> Path:
        """Returns the folder of the reference run `key`; `produce` fills it on first use."""
        shared = self.root / "references"
        shared.mkdir(parents=True, exist_ok=True)
        done = shared / key
        with FileLock(shared / f"{key}.lock"):
            if not done.exists():
                making = shared / f"{key}.making"
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir()
                produce(making)
                making.rename(done)
        return done

    def close(self) -> None:
        """End the servers and the cluster, if they were started."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        if self._server is not None:
            self._server.close()
            self._server = None
        while self._commands:
            self._commands.popitem()[1].close()

    def __enter__(self) -> Services:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
