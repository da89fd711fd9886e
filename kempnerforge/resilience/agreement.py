"""Agreement of all ranks on one yes or no, once per step.

The answer comes from an all-reduce on a gloo group that nothing else uses. Its cost grows with the
logarithm of the number of ranks, unlike the cost of the rounds that a save needs. Every wait is
bounded. A rank that died has closed its connections. A rank that exited before it had any has left
a note. A rank that hangs is waited for until the deadline. A rank that gives up closes its own
connections, so that all others fail at once, whichever rank they are waiting for.
"""

from typing import Any

import torch
import torch.distributed as dist

from kempnerforge.checkpoint.errors import PeerLostError
from kempnerforge.checkpoint.runtime.collective import first_line, open_group

__all__ = ["Agreement"]


class Agreement:
    """Lets some ranks agree on answers.

    Args:
        members: Participating ranks of the job, including this one.
        timeout_s: Longest time in seconds that a rank waits for the others.
    """

    def __init__(self, members: tuple[int, ...], *, timeout_s: float) -> None:
        self._members = members
        self._timeout_s = timeout_s
        self._group: Any = None
        self._lost: str | None = None

    def any(self, mine: bool) -> bool:
        """Returns whether any rank says yes. Collective over ``members``.

        Raises:
            PeerLostError: A rank died, hung or lost its connection; every later call raises it too.
        """
        if self._lost is not None:
            raise PeerLostError(self._lost)
        if len(self._members) == 1:
            return mine
        try:
            return self._reduce(mine)
        except RuntimeError as error:
            self.close()
            self._lost = f"the ranks cannot agree on a shutdown: {first_line(error)}"
            raise PeerLostError(self._lost) from error

    def _reduce(self, mine: bool) -> bool:
        if self._group is None:
            self._group = open_group("shutdown", self._members, timeout_s=self._timeout_s)
        flag = torch.tensor([int(mine)], dtype=torch.int32, device="cpu")
        options: Any = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX
        self._group.allreduce([flag], options).wait()
        return bool(flag.item())

    def close(self) -> None:
        """Closes the connections; not collective."""
        self._group = None
