"""The tests' end of the server."""

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any


class Server:
    """Runs process sets, one at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def run(self, thing: str, phase: str, directory: Path) -> dict[str, Any]:
        """Reports of the ranks, and the signals that ended them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"thing": thing, "phase": phase, "directory": str(directory)}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the server ended:\n{self._log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer
