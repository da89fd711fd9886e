"""SLURM as the launcher of a run: `srun`, or `sbatch` if a run is to be restarted.

A job that is restarted is a batch script, as SLURM's own documentation has it: the signal before
the time limit goes to the script, which passes it on to its step, waits for the ranks to save and
end, and requeues the job. Then it stays until SLURM ends it: its own exit could be taken for the
exit of the job that has just been requeued, which would then be over. SLURM would make a requeued
job wait for two minutes; here it is released at once. A job keeps its last time limit, so each
start asks for the full time again.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_LIMIT_MINUTES = 60
_SIGNAL = "B:USR1@60"
"""To the batch script, a minute before the limit or up to half a minute earlier."""
_LOOK_EVERY_S = 0.3
_ENDED = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
})  # fmt: skip
"""The states of `man squeue` in which a job is over for good. All others are transient, such as
SIGNALING, which lasts until slurmd has confirmed the signal."""
_UNKNOWN = "UNKNOWN"
_GONE_S = 60.0
"""How long SLURM can be silent about an existing job, because its controller gets no processor;
SLURM reports a job for 300 s after its end."""
_REST_S = 5.0
"""Before a job restarts: slurmd refuses it while something of its last start is still there."""
_SCRIPT = """\
#!/bin/bash
scontrol update JobId="$SLURM_JOB_ID" TimeLimit={limit}
trap 'asked=1; kill -USR1 "$step"' USR1
{srun} & step=$!
while wait "$step"; status=$?; kill -0 "$step" 2>/dev/null; do :; done
if [ -n "$asked" ]; then scontrol requeue "$SLURM_JOB_ID" && sleep 600; fi
exit "$status"
"""


def launch(request: dict[str, Any]) -> int:
    """Start the ranks, and stay until the last of them has ended for good; returns its status."""
    os.environ["SLURM_CONF"] = request["slurm"]["configuration"]
    if not request["launcher"]["restarts"]:
        # Replaces this process, so that it ends with the job launcher, as this one would.
        command = [*_own_processes(), *_srun(request)]
        os.execvp(command[0], command)
    script = Path(request["directory"], f"run{request['run']}", "job.sh")
    script.write_text(_script(_srun(request)), encoding="utf-8")
    number = _ask("sbatch", "--parsable", *_batch(request), str(script)).strip()
    return _follow(number)


def _own_processes() -> list[str]:
    """Returns a prefix for srun that ends srun's helper process together with it.

    The helper reports srun's death to the controller, and retries for a minute if the controller is
    gone. Empty in a container that does not allow it.
    """
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--"]
    tried = subprocess.run([*alone, "true"], check=False)
    return [] if tried.returncode else alone


def _script(srun: list[str]) -> str:
    return _SCRIPT.format(limit=_LIMIT_MINUTES, srun=shlex.join(srun))


def _srun(request: dict[str, Any]) -> list[str]:
    shim = [sys.executable, "-m", "harness.boot.rank_shim", request["directory"]]
    name = f"--job-name={request['slurm']['job']}"
    # A rank that fails takes the others along, as torchrun has it.
    return ["srun", name, f"--ntasks={request['ranks']}", "--kill-on-bad-exit=1", *shim]


def _batch(request: dict[str, Any]) -> list[str]:
    log = Path(request["directory"], f"run{request['run']}", "job.log")
    return [
        f"--job-name={request['slurm']['job']}",
        f"--ntasks={request['ranks']}",
        f"--time={_LIMIT_MINUTES}",
        f"--signal={_SIGNAL}",
        f"--output={log}",
        "--open-mode=append",
        "--requeue",
    ]


def _follow(number: str) -> int:
    """Wait for the end of a batch job; returns its status."""
    before, since = None, time.monotonic()
    while True:
        state, restarts = _state(number)
        if (state, restarts) != before:
            # As torchrun's agent does in its own log.
            sys.stderr.write(f"job {number}: {state}, {restarts} restarts\n")
            before, since = (state, restarts), time.monotonic()
        if state in ("PENDING", "REQUEUED") and restarts and time.monotonic() - since > _REST_S:
            # Refused if the job has begun meanwhile; the next look shows it.
            _ask("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)
        elif state in _ENDED:
            return 0 if state == "COMPLETED" else 1
        elif state == _UNKNOWN and time.monotonic() - since > _GONE_S:
            return 1
        time.sleep(_LOOK_EVERY_S)


def _state(number: str) -> tuple[str, int]:
    answer = _ask("scontrol", "show", "job", number, check=False)
    fields = dict(field.partition("=")[::2] for field in answer.split())
    return fields.get("JobState", _UNKNOWN), int(fields.get("Restarts", 0))


def _ask(*command: str, check: bool = True) -> str:
    """Returns the output of a SLURM command; its errors go to the log."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=check).stdout
