"""Imports everything that a rank will need, in the fork server before it forks.

Only imports and pure byte tables. Nothing distributed is tried out here: sharding on a fake mesh
leaves caches behind that give the forked ranks the wrong shards. The package under test is not
imported, because each rank imports its own.
"""

from __future__ import annotations

import gc
import importlib
import os
import weakref

_MODULES = (
    "numpy.random",
    "torch._dynamo",  # the first fully_shard and the first optimizer would import it
    "torch._functorch.aot_autograd",  # torch.compile and its first trace would import these two
    "torch.distributed.tensor.experimental._func_map",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor",
    "torchdata.stateful_dataloader",
    "harness.jobs.training.rank",
)


def preload() -> None:
    """Import, fill the tables, and leave one thread and no accelerator context behind."""
    # OpenBLAS starts its threads when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Hardly anything that is imported is garbage, and looking for it takes a fifth of the time.
    gc.disable()
    for name in _MODULES:
        importlib.import_module(name)
    gc.enable()

    from harness.jobs.training.data import image_corpus, text_corpus

    text_corpus()
    image_corpus()
    _leave_finalizers_to_the_server()


def _leave_finalizers_to_the_server() -> None:
    """Ranks run the exit handlers, but need not free what torch registered here."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
