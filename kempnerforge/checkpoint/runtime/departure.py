"""Records in the job's store that a rank has exited, so that the others do not wait for it.

Once there are connections, a closed one shows that a rank is gone. A rank that exits before the
first connections were opened, by ``sys.exit`` or an uncaught exception, would otherwise be waited
for until the deadline.

Not covered: a rank that is killed, or calls ``os._exit``, before that, because it leaves no record;
and a rank that has destroyed its process group, which is how a job ends in order.
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
    """Registers the record of this rank's exit; only the first call in a process has an effect."""
    atexit.unregister(_say)
    atexit.register(_say)


def require_present(store: Any, members: Sequence[int]) -> None:
    """Checks that none of ``members``, ranks of the job, is known to have exited.

    Raises:
        PeerLostError: A rank has exited; the message names it.
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
        # Setting a key waits for no answer, so a store that hangs does not delay the exit.
        store.set(f"{_GONE}/{dist.get_rank()}", "1")
        store.set(_GONE, "1")
    except RuntimeError as error:  # it ended with the rank that served it, which all ranks notice
        logger.debug("the store of the job is gone: %s", error)
