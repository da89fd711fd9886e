"""One yes or no that all ranks share, asked for once a step.

The answer comes from an all-reduce on a gloo group that nothing else uses. Its cost grows with the
logarithm of the number of ranks, unlike that of the rounds that a save needs. Every wait ends: a
rank that died has closed its connections, one that ended its program before there were any has said
so, one that hangs is waited for until the deadline, and a rank that gives up closes its own
connections, so the others, whoever they wait for, follow at once.
"""

from typing import Any

import torch
import torch.distributed as dist

from kempnerforge.checkpoint.errors import PeerLostError
from kempnerforge.checkpoint.runtime.collective import first_line, open_group

__all__ = ["Agreement"]


class Agreement:
    """Shared answers of some ranks.

    Args:
        members: Ranks of the job, this one among them.
        timeout_s: Longest that a rank waits for the others, in seconds.
    """

    def __init__(self, members: tuple[int, ...], *, timeout_s: float) -> None:
        self._members = members
        self._timeout_s = timeout_s
        self._group: Any = None
        self._lost: str | None = None

    def any(self, mine: bool) -> bool:
        """Whether any rank says yes. Collective: all ranks, the same number of times.

        Raises:
            PeerLostError: A rank died, hung or lost its connection; at every later call too.
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
        """Close the connections; not collective."""
        self._group = None
