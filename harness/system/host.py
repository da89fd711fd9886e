"""A host of its own for a rank: a mount, a host name and a boot id that no other host has.

Ranks of all hosts see the checkpoint directory at the same path, as on a cluster; each host reaches
it through another mount, which shares neither locks nor caches. The network, the clock and the
process ids are those of one machine.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.system.mounts import bind, take_own_mounts, take_own_name

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_NAMESPACE = uuid.UUID("7d3f8d1c-52a4-4c0e-9d55-0b6f4e3c2a10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The place of a host's mount, and the directory at which its ranks see it."""

    name: str
    place: Path
    shown: Path
    boot_id: Path

    def prepare(self) -> None:
        """Create the place, and the file with the boot id."""
        self.place.mkdir(parents=True)
        self.boot_id.write_text(f"{uuid.uuid5(_NAMESPACE, self.name)}\n", encoding="ascii")

    def as_request(self) -> dict[str, str]:
        """Returns what a job launcher needs in order to put a rank on this host."""
        return {
            "name": self.name,
            "place": str(self.place),
            "shown": str(self.shown),
            "boot_id": str(self.boot_id),
        }


def enter_host(host: Mapping[str, str]) -> None:
    """Move this process, which has only one thread, to a host. Raises MountError."""
    take_own_mounts()
    take_own_name()
    socket.sethostname(f"{host['name']}-host")
    bind(host["place"], host["shown"])
    bind(host["boot_id"], _BOOT_ID)
