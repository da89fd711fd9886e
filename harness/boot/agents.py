"""Starts launchers that people use, one process on each node, forked by the job launcher of a run.

`torchrun`: torch's own elastic agent, called in a process that has already imported torch. It
starts each rank as a new Python process, as usual. The agents of several nodes meet through a store
that the first of them serves, at a port in a network namespace of its own. A single agent picks a
free port, in a namespace of its own if it can have one. `slurm`: see `slurm.py`.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

from harness.boot import slurm
from harness.system.network import address, enter, take_own_network
from harness.system.parent import die_with_parent

_RENDEZVOUS_PORT = 29400


def fork_agents(request: dict[str, Any]) -> dict[int, int]:
    """Start the launcher; returns the node of each process of its own."""
    job_launcher = os.getpid()
    nodes = {}
    for node in range(request["nodes"]):
        pid = os.fork()
        if pid == 0:
            die_with_parent(job_launcher)
            os.setpgid(0, 0)
            if request["namespaces"]:
                enter(request["namespaces"][node])
            os._exit(_agent_main(request, node))
        nodes[pid] = node
    return nodes


def _agent_main(request: dict[str, Any], node: int) -> int:
    _redirect(Path(request["directory"], f"run{request['run']}", f"agent{node}.log"))
    try:
        if request["launcher"]["kind"] == "slurm":
            return slurm.launch(request)
        _torchrun(request, node)
    except BaseException:  # noqa: BLE001 - the status and the log tell how a launcher ended
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _redirect(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, output), (2, output)):
        os.dup2(source, target)


def _torchrun(request: dict[str, Any], node: int) -> None:
    # Restarted ranks would find the keys of the dead ones in a shared store, and gloo would connect
    # to addresses where no process listens any more (docs/launchers.md).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed.run import main

    nodes = request["nodes"]
    settings = {
        "--nnodes": nodes,
        "--nproc-per-node": request["ranks"] // nodes,
        "--max-restarts": request["launcher"]["restarts"],
        # By default it creates a new folder in the machine's temporary directory, and never removes
        # it.
        "--log-dir": Path(request["directory"], f"run{request['run']}", f"agent{node}"),
    }
    if nodes == 1:
        meeting = ["--standalone"]
        # The agent looks for a free port and leaves it to a rank to take it. On a busy machine
        # another process can be quicker, and the ranks fail before they have begun.
        if take_own_network():
            settings["--local-addr"] = "127.0.0.1"
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    else:
        meeting = ["--rdzv-backend=c10d", "--rdzv-id=job", f"--rdzv-conf=is_host={int(node == 0)}"]
        settings["--rdzv-endpoint"] = f"{address(0)}:{_RENDEZVOUS_PORT}"
        settings["--local-addr"] = address(node)
    options = [f"{key}={value}" for key, value in settings.items()]
    main([*options, *meeting, "--module", "harness.boot.rank_shim", request["directory"]])
