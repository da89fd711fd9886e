"""A machine of its own that has an NFS server and mounts of it: Debian's User-Mode Linux.

The kernel that tests run on may have no NFS. User-Mode Linux is a kernel that runs as a process of
an ordinary user, and Debian's has the client and the server. Its root directory is that of the
machine outside, so the Python and the packages of the tests are there; `init.sh` is its first
process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_PROGRAMS = {
    "linux.uml": "user-mode-linux",
    "exportfs": "nfs-kernel-server",
    "mount.nfs": "nfs-common",
    "rpcbind": "rpcbind",
    "modprobe": "kmod",
}
_PATHS = "/usr/sbin:/usr/bin:/sbin:/bin"
_MEMORY = "3G"
_TIMEOUT_S = 900


def missing() -> str | None:
    """Why there can be no such machine here, or None."""
    packages = [
        package for program, package in _PROGRAMS.items() if not shutil.which(program, path=_PATHS)
    ]
    return f"Debian's packages {', '.join(packages)} are not installed" if packages else None


def run_inside(folder: Path, *checks: str) -> dict[str, Any]:
    """Start the machine, run checks of `inside` (without names: all); what each found."""
    program = shutil.which("linux.uml", path=_PATHS)
    assert program is not None
    given = [
        *(f"mem={_MEMORY}", "rootfstype=hostfs", "rw", "quiet", f"init={ROOT}/tests/nfs/init.sh"),
        *("con=null", "con0=null,fd:1", f"uml_dir={folder}", "umid=machine"),
        *(f"KF_FOLDER={folder}", f"KF_ROOT={ROOT}", f"KF_PYTHON={sys.executable}"),
        f"KF_CHECKS={','.join(checks)}",
    ]
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            [program, *given],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},
            start_new_session=True,
        )
        try:
            process.wait(_TIMEOUT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    results = folder / "results.json"
    assert results.exists(), (folder / "console").read_text(errors="replace")[-4000:]
    found: dict[str, Any] = json.loads(results.read_text())
    return found
