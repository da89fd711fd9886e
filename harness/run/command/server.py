"""The parent's side of a command server: starts it, asks it for runs, ends it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.jobs.command.program import Program
from harness.run.server_process import ServerProcess
from harness.system.errors import HarnessError

SERVER = Path(__file__).parents[2] / "boot" / "command_server.py"
"""The script of a command server."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""OpenBLAS starts its threads when numpy is imported, and they would be in the way of a fork. The
ranks have their own environment again."""
_BOOT_S = 600.0
"""For the imports of the command; a library may compile something at the first of them."""


class NotWarmError(Exception):
    """Ranks forked from a server would not be what the command starts; the text says why."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A folder, and the place at which a start sees it, in mounts of its own.

    At first these are those of the namespace `mounts`, by default the server's.
    """

    folder: Path
    place: Path
    mounts: str | None = None


class CommandServer(ServerProcess):
    """A process that has imported what a command imports, and forks its ranks."""

    def __init__(self, program: Program, modules: Sequence[str], folder: Path) -> None:
        self._folder, self._log = folder, folder / "server.log"
        request = folder / "server.json"
        request.write_text(json.dumps({"modules": list(modules)}), encoding="utf-8")
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [program.interpreter, "-u", str(SERVER), str(other.fileno()), str(request)],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=program.cwd,
                env={**_ONE_THREAD, **program.environment},
            )  # fmt: skip
        other.close()
        self._reads = itertools.count()

    def wait_until_ready(self) -> None:
        """Wait for the imports. Raises NotWarmError, or HarnessError if the server died."""
        self._control.settimeout(_BOOT_S)
        try:
            answer = self._control.recv(65536)
        except TimeoutError:
            raise NotWarmError(f"its imports took more than {_BOOT_S:.0f} s") from None
        self._control.settimeout(None)
        if not answer:
            tail = self._log.read_text(errors="replace")[-4000:]
            raise HarnessError(f"the server of the command did not start; its log ends:\n{tail}")
        if answer != b"ready":
            raise NotWarmError(answer.decode())

    def start(
        self,
        directory: Path,
        run: int,
        programs: Sequence[Program],
        *,
        watched: bool,
        shown: Shown,
    ) -> socket.socket:
        """Fork the job launcher of one run, whose folder exists; returns its end of the socket."""
        request = directory / f"run{run}" / "request.json"
        wanted = {
            "directory": str(directory),
            "run": run,
            "ranks": len(programs),
            "nodes": 1,
            "reads": False,
            "launcher": {"kind": "local"},
            "watched": watched,
            "programs": [one.as_request() for one in programs],
            "shown": [str(shown.folder), str(shown.place)],
            **({} if shown.mounts is None else {"mounts": shown.mounts}),
        }
        request.write_text(json.dumps(wanted), encoding="utf-8")
        link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            socket.send_fds(self._control, [os.fsencode(request)], [other.fileno()])
        return link

    def read(self, files: Sequence[Path]) -> list[Mapping[str, str] | str]:
        """Returns the values in each file by name, or why it cannot be read."""
        if not files:
            return []
        number = next(self._reads)
        request = self._folder / f"read{number}.json"
        answer = self._folder / f"read{number}-answer.json"
        wanted = {"files": [str(one) for one in files], "answer": str(answer)}
        request.write_text(json.dumps(wanted), encoding="utf-8")
        link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with link:
            with other:
                socket.send_fds(self._control, [os.fsencode(request)], [other.fileno()])
            link.recv(1)  # the end of the process that reads
        if not answer.exists():
            return ["the process that read it died"] * len(files)
        found: list[Mapping[str, str] | str] = json.loads(answer.read_bytes())
        request.unlink()
        answer.unlink()
        return found

    @property
    def process(self) -> int:
        """The server's process; those of the command are below it."""
        return self._process.pid
