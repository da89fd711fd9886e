"""A rank that leaves says so in the job's store, so that nobody waits for it to come.

Connections tell that a rank is gone, once there are connections. A rank that ends its program
before the first of them were opened, by ``sys.exit`` or an exception that nobody caught, would be
waited for until the deadline.

Not covered: a rank that is killed, or ends by ``os._exit``, before that; it says nothing. Nor one
that has destroyed its process group, which is how a job ends in order.
"""

import atexit
import logging
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.errors import PeerLostError

__all__ = ["announce", "require_present"]

logger = logging.getLogger(__name__)

_c10d: Any = dist.distributed_c10d
_GONE = "kempnerforge/gone"


def announce() -> None:
    """Have this rank say that it leaves, when it does; once a process, however often called."""
    atexit.unregister(_say)
    atexit.register(_say)


def require_present(store: Any, members: Sequence[int]) -> None:
    """Do nothing while none of ``members``, ranks of the job, is known to have left.

    Raises:
        PeerLostError: One has; the message names it.
        RuntimeError: The store is gone.
    """
    if not store.check([_GONE]):
        return
    for rank in members:
        if store.check([f"{_GONE}/{rank}"]):
            raise PeerLostError(f"rank {rank} has ended its program")


def _say() -> None:
    if not dist.is_initialized():
        return
    store = _c10d._get_default_store()
    try:
        # Setting waits for no answer, so a store that hangs does not keep the program from ending.
        store.set(f"{_GONE}/{dist.get_rank()}", "1")
        store.set(_GONE, "1")
    except RuntimeError as error:  # it ended with the rank that served it, and all see that
        logger.debug("the store of the job is gone: %s", error)
