"""Runs a daemon, and ends what the daemon has left behind: `python -m
harness.boot.slurmd_supervisor COMMAND`.

slurmd starts a `slurmstepd` for each step, which is meant to outlive it and reports the step's end
to the controller, for as long as that takes. When the session is killed, the controller is gone for
good. The parent has the kernel send SIGTERM to this process when the session dies, and this process
passes it on.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from harness.boot.job_launcher import adopt_orphans, orphans


def main(command: list[str]) -> int:
    """Run the daemon to its end; returns its status."""
    adopt_orphans()
    with subprocess.Popen(command) as daemon:
        signal.signal(signal.SIGTERM, lambda *_: daemon.send_signal(signal.SIGTERM))
        status = daemon.wait()
    orphans()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
