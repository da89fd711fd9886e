"""Forks the ranks of jobs from one warm process, without a supervisor: jobs in, exit codes out.

Each line of standard input is a job `{"directory", "run", "ranks", "strike"}`; the answer is a line
with the exit codes. A strike `[rank, signal, step]` sends the signal to a rank, or to all of them
when rank is null, once the struck rank (rank 0 for all) has recorded the step.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from harness.jobs.training.preload import preload

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 60.0
"""How long ranks may outlive the first one that failed, and loader processes their rank."""


def run_rank(directory: str, run: int, rank: int) -> None:
    path = Path(directory, f"run{run}", f"rank{rank}.log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = 99
    try:
        from harness.jobs.training.rank import enter

        code = enter(directory, run, rank)
    except BaseException:  # noqa: BLE001 - it goes to the rank's log
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


class Job:
    def __init__(
        self, directory: str, run: int, ranks: int, strike: tuple[int | None, int, int] | None
    ) -> None:
        self.directory, self.run, self.strike = directory, run, strike
        Path(directory, f"run{run}").mkdir(parents=True, exist_ok=True)
        self.pids = []
        for rank in range(ranks):
            pid = os.fork()
            if pid == 0:
                run_rank(directory, run, rank)
            self.pids.append(pid)
        self.codes: dict[int, int] = {}

    def wait(self) -> list[int]:
        deadline = None
        while len(self.codes) < len(self.pids):
            self.reap()
            self.strike_when_due()
            if any(self.codes.values()) and deadline is None:
                deadline = time.monotonic() + GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                self.send(None, signal.SIGKILL)
            time.sleep(0.001)
        refuse_orphans()
        return [self.codes[pid] for pid in self.pids]

    def reap(self) -> None:
        for pid in self.pids:
            if pid in self.codes:
                continue
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.codes[pid] = os.waitstatus_to_exitcode(status)

    def strike_when_due(self) -> None:
        if self.strike is None:
            return
        rank, number, step = self.strike
        path = Path(self.directory, f"run{self.run}", f"rank{rank or 0}.jsonl")
        text = path.read_text() if path.exists() else ""
        if f'"kind":"stepped","step":{step},' in text:
            self.strike = None
            self.send(rank, number)

    def send(self, rank: int | None, number: int) -> None:
        for position, pid in enumerate(self.pids):
            if pid not in self.codes and rank in (None, position):
                os.kill(pid, number)


def refuse_orphans() -> None:
    """Loader processes must end with their rank, however it ended."""
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
        except ChildProcessError:
            return
    raise RuntimeError("a process outlived its rank")


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    preload()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(Job(**json.loads(line)).wait()), flush=True)


if __name__ == "__main__":
    main()
