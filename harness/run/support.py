"""Whether this machine can run jobs under the supervisor, and if not, why."""

from __future__ import annotations

import functools
import os
import sys

from harness.plan.model import Plan


@functools.cache
def missing() -> str | None:
    """None where scenarios can run, else the reason in words."""
    if sys.platform != "linux":
        return f"scenarios need Linux (seccomp user notification); this is {sys.platform}"
    from harness.run.seccomp import architecture

    if architecture() is None:
        return f"no system-call table for {os.uname().machine}; known are x86_64 and aarch64"
    number = _probe()
    if number == 0:
        return None
    return (
        "this kernel or container refuses seccomp user notification with WAIT_KILLABLE_RECV "
        f"(Linux 5.19 or newer): {os.strerror(number)}"
    )


def missing_for(plan: Plan) -> str | None:
    """As `missing`, and what this plan needs beside that."""
    from harness.run import links

    spread = any(plan.workload_of(number).world.nodes > 1 for number in range(len(plan.runs)))
    return missing() or (links.missing() if spread else None)


def _probe() -> int:
    """Install the filter in a child that does nothing else; 0, or the errno."""
    from harness.run.seccomp import install_filter

    pid = os.fork()
    if pid == 0:
        try:
            install_filter(reads=False)
        except OSError as error:
            os._exit((error.errno or 1) & 0xFF)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
