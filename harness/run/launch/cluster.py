"""A SLURM cluster of one node, for the scenarios whose ranks SLURM starts.

SLURM's own daemons, munged, slurmctld and slurmd, run unmodified in a folder, on ports that are
free when they start, and end with this process. Only the configuration is ours: no accounting, no
cgroups (a container has none to give), and more processors than there are, because a job of four
ranks must fit on any machine. Needs root, as slurmd does.
"""

from __future__ import annotations

import functools
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.system.errors import HarnessError

_TOOLS = (
    "munged", "slurmctld", "slurmd", "sinfo", "srun", "sbatch", "squeue", "scontrol", "scancel",
    "setpriv", "unshare",
)  # fmt: skip
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
_BOOT_S = 60.0
"""The node is idle 2 s after the start on idle cores."""
_END_S = 60.0
_ANSWER_S = 60.0
"""For a command of SLURM while the controller gets no processor."""
_LOOK_EVERY_S = 0.1
_SETTINGS = """\
ClusterName=harness
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
MessageTimeout=60
BatchStartTimeout=60
MpiDefault=none
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""SLURM's own commands, also `sbatch` and `srun`, give up after 10 s on a controller that gets no
processor, and the controller gives up on a batch job that has not begun by then. `MessageTimeout`
and `BatchStartTimeout` give both a minute."""


@functools.cache
def missing() -> str | None:
    """Returns why no cluster can be started on this machine, or None."""
    if os.geteuid() != 0:
        return "a SLURM cluster needs root, as slurmd does"
    tools = [name for name in _TOOLS if _find(name) is None]
    if tools:
        packages = "slurmctld slurmd slurm-client munge"
        return f"{', '.join(tools)} not found; Debian has them in the packages {packages}"
    return None


def _find(name: str) -> str | None:
    """Daemons are not on every user's PATH."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SYSTEM_FOLDERS))


_PORTS_FOR_ALL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT = 10_000
_PORTS_TRIED = 100
_PORTS_END = 1 << 16


class Cluster:
    """A cluster owned by one process: its daemons end with the thread that created it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.configuration = folder / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons, and wait until the node accepts jobs. Raises HarnessError."""
        for name in ("state", "spool"):
            (self._folder / name).mkdir(parents=True)
        key = self._folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        control, node = _free_ports()
        text = _SETTINGS.format(
            host=socket.gethostname().partition(".")[0],
            folder=self._folder,
            control_port=control,
            node_port=node,
        )
        self.configuration.write_text(text, encoding="utf-8")
        # One after the other: each of them ends at once if it does not find the one before.
        self._run("munged", "--foreground", "--force", *self._munge(key))
        self._wait_for("munged", (self._folder / "munge.socket").exists)
        self._run("slurmctld", "-D", "-f", str(self.configuration))
        self._run("slurmd", "-D", "-f", str(self.configuration), leaves_steps=True)
        self._wait_for("slurmd", self._is_idle)

    def _munge(self, key: Path) -> list[str]:
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        paths = [f"--{option}={self._folder}/munge.{end}" for option, end in names.items()]
        return [*paths, f"--key-file={key}"]

    def _run(self, name: str, *arguments: str, leaves_steps: bool = False) -> None:
        """Start a daemon that ends with this process.

        With `leaves_steps`, it starts processes that are meant to outlive it; they are ended with
        it.
        """
        command = ["setpriv", "--pdeathsig=KILL", "--", str(_find(name)), *arguments]
        if leaves_steps:
            supervisor = [sys.executable, "-m", "harness.boot.slurmd_supervisor"]
            command = ["setpriv", "--pdeathsig=TERM", "--", *supervisor, *command]
        with (self._folder / f"{name}.out").open("ab") as output:
            daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )
        self.daemons.append(daemon)

    def _wait_for(self, name: str, done: Callable[[], bool]) -> None:
        until = time.monotonic() + _BOOT_S
        while not done():
            if time.monotonic() > until or any(one.poll() is not None for one in self.daemons):
                tail = (self._folder / f"{name}.out").read_text(errors="replace")[-2000:]
                raise HarnessError(f"{name} did not start, see {self._folder}:\n{tail}")
            time.sleep(_LOOK_EVERY_S)

    def _is_idle(self) -> bool:
        return self._ask("sinfo", "--noheader", "--format=%T").stdout.strip() == "idle"

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.configuration)}

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False
        )

    def _answer(self, *command: str) -> str:
        """Returns the output of a command, retried while it fails. Raises HarnessError."""
        until = time.monotonic() + _ANSWER_S
        while (done := self._ask(*command)).returncode:
            if time.monotonic() > until:
                raise HarnessError(f"{shlex.join(command)}: {done.stderr.strip()}")
            time.sleep(_LOOK_EVERY_S)
        return done.stdout

    def expire(self, job: str) -> None:
        """Set a job's time limit to two minutes from now, before which SLURM sends its signal.

        Raises HarnessError.
        """
        for line in self._jobs(job, "%A %M"):
            number, began = line.split()
            minutes = int(began.split(":")[0]) if began.count(":") == 1 else 60
            self._answer("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes + 2}")

    def cancel(self, job: str) -> None:
        """End what is left of a job, and wait for it."""
        until = time.monotonic() + _END_S
        # If the controller does not answer, the job ends with the daemons.
        with suppress(HarnessError):
            while (left := self._jobs(job, "%A")) and time.monotonic() < until:
                self._ask("scancel", *left)
                time.sleep(_LOOK_EVERY_S)

    def _jobs(self, job: str, form: str) -> list[str]:
        """Returns the unfinished jobs of that name, one line each. Raises HarnessError."""
        return self._answer(
            "squeue", "--noheader", f"--name={job}", f"--format={form}"
        ).splitlines()

    def close(self) -> None:
        """End the daemons, the last one first."""
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(_END_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_ports() -> tuple[int, int]:
    """Returns two unused ports; SLURM must know them before it opens them.

    They are below the range from which the kernel hands out ephemeral ports, as the ranks of other
    jobs get them all the time: one of those would sometimes be taken by then.
    """
    low = int(_PORTS_FOR_ALL.read_text(encoding="ascii").split()[0])
    low = low if low >= _FIRST_PORT + _PORTS_TRIED else _PORTS_END
    found: list[int] = []
    for port in secrets.SystemRandom().sample(range(_FIRST_PORT, low), k=_PORTS_TRIED):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise HarnessError(f"no two free ports among {_PORTS_TRIED} from {_FIRST_PORT} to {low}")
