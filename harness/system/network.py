"""Nodes for the ranks of one run: network namespaces, and a switch that joins them.

Each node is a namespace with one interface, `net0`, whose other end `node0`, `node1`, ... is a port
of a bridge in a separate namespace. Taking a port down cuts that node off like a pulled cable: the
node keeps its addresses, and nothing reports that its packets are lost. Everything disappears with
the processes of the run, because nothing else holds the namespaces.

Needs root and `ip` (iproute2). The checkpoint directory is reached another way, as over a separate
storage network.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass

LINK = "net0"
"""The interface of a node."""
PORT = 29500
"""Where rank 0 serves the job's store: in a namespace of its own every port is free."""

_CLONE_NEWNET = 0x40000000
_TOOLS = ("ip", "tc", "nsenter", "unshare")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Descriptors of the namespaces of the nodes and of the switch, and a socket in the latter."""

    nodes: tuple[int, ...]
    switch: int
    control: socket.socket


@functools.cache
def missing() -> str | None:
    """Returns why this machine cannot give nodes a network of their own, or None."""
    if os.geteuid() != 0:
        return "nodes with a network of their own need root"
    tools = [name for name in _TOOLS if shutil.which(name) is None]
    if tools:
        return f"nodes with a network of their own need {', '.join(tools)}"
    probe = ["unshare", "--net", "ip", "link", "add", "probe", "type", "bridge"]
    found = subprocess.run(probe, capture_output=True, text=True, check=False)
    return None if found.returncode == 0 else f"no network namespaces here: {found.stderr.strip()}"


def address(node: int) -> str:
    """Returns the address of a node."""
    return f"10.77.0.{node + 1}"


def make_network(nodes: int) -> Network:
    """Create and join the namespaces; this process stays in its own. Raises OSError."""
    home = _here()
    switch, control = _make_switch()
    made = []
    try:
        for node in range(nodes):
            _check(_libc.unshare(_CLONE_NEWNET))
            made.append(_here())
            there = f"/proc/{os.getpid()}/fd/{switch}"
            _ip(
                "link set lo up",
                f"link add {LINK} type veth peer name node{node} netns {there}",
                f"addr add {address(node)}/24 dev {LINK}",
                f"link set {LINK} up",
            )
            enter(switch)
            _ip(f"link set node{node} master switch up")
    finally:
        enter(home)
        os.close(home)
    return Network(nodes=tuple(made), switch=switch, control=control)


def take_own_network() -> bool:
    """Give this process a namespace with only `lo`, in which every port is free.

    Returns False if this machine does not allow it. Raises OSError.
    """
    if missing() is not None:
        return False
    _check(_libc.unshare(_CLONE_NEWNET))
    _ip("link set lo up")
    return True


def enter(namespace: int) -> None:
    """Move this thread into a network namespace. Raises OSError."""
    _check(_libc.setns(namespace, _CLONE_NEWNET))


def _make_switch() -> tuple[int, socket.socket]:
    _check(_libc.unshare(_CLONE_NEWNET))
    _ip("link add switch type bridge", "link set switch up")
    return _here(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _here() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _ip(*commands: str) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"ip: {done.stderr.strip()}")


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
