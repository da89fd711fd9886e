"""A process that takes leases; run by the tests of the broker, several at once.

    python leasing.py FOLDER churn ROUNDS RANKS GPUS   say on disk what is held, and look at others
    python leasing.py FOLDER hold RANKS GPUS           hold until the standard input ends

The machine that it reckons with has 4 ranks and 2 GPUs. While a process holds a GPU it holds a file
of that name, which nobody else may have; the ranks that it holds stand in the name of a file, so
that all can be added up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.plan.place import Need
from harness.run.broker import Broker, ResourceLease
from harness.run.machine import Machine

MACHINE = Machine(ranks=4, memory_mib=1024, gpus=("0", "1"))


@contextmanager
def alone(file: Path) -> Iterator[None]:
    file.touch(exist_ok=False)
    try:
        yield
    finally:
        file.unlink()


def use(folder: Path, lease: ResourceLease) -> None:
    """Raise where more is held than there is."""
    with ExitStack() as stack:
        for name in lease.gpus:
            stack.enter_context(alone(folder / f"gpu{name}"))
        stack.enter_context(alone(folder / f"{os.getpid()}-{lease.ranks}.ranks"))
        for _ in range(20):
            held = sum(int(path.stem.split("-")[1]) for path in folder.glob("*.ranks"))
            if held > MACHINE.ranks:
                raise RuntimeError(f"{held} ranks are held")


def main() -> None:
    """See the head of this module."""
    folder, action = Path(sys.argv[1]), sys.argv[2]
    *rounds, ranks, gpus = (int(text) for text in sys.argv[3:])
    broker = Broker(folder / "leases", MACHINE)
    need = Need(ranks=ranks, memory_mib=ranks, gpus=gpus)
    if action == "hold":
        with broker.lease(need) as lease:
            print(",".join(lease.gpus), flush=True)
            sys.stdin.read()
        return
    for _ in range(rounds[0]):
        with broker.lease(need) as lease:
            use(folder, lease)


if __name__ == "__main__":
    main()
