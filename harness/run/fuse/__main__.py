"""The process of one mount: `python -m harness.run.fuse PARENT DEVICE BELOW BEHAVIOUR`."""

from __future__ import annotations

import json
import sys

from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.server import Server
from harness.system.limits import raise_descriptor_limit
from harness.system.parent import die_with_parent


def main(parent: str, device: str, below: str, behaviour: str) -> None:
    """Serve until the mount is gone, or the parent is."""
    die_with_parent(int(parent))
    raise_descriptor_limit()
    Server(int(device), below, Behaviour(**json.loads(behaviour))).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
