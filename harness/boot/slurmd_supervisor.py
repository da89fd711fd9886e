"""Runs a daemon, and ends what the daemon has left behind: `python -m
harness.boot.slurmd_supervisor COMMAND`.

slurmd starts a `slurmstepd` for each step, which is meant to outlive it and tells the controller of
the end for as long as that takes. Where the session is killed, the controller is gone for good. Who
starts this has the kernel send it SIGTERM when the session dies; it passes that on.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from harness.boot.job_launcher import adopt_orphans, orphans


def main(command: list[str]) -> int:
    """Run the daemon to its end; its status."""
    adopt_orphans()
    with subprocess.Popen(command) as daemon:
        signal.signal(signal.SIGTERM, lambda *_: daemon.send_signal(signal.SIGTERM))
        status = daemon.wait()
    orphans()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
