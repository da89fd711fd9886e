"""Imports what ranks need, in the server that they are forked from.

The garbage collector leaves all of it alone, so that the ranks share its pages.
"""

import gc
import importlib

_MODULES = (
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "torch._dynamo",
    "tests.checkpoint.training",  # and with it the package, whose names are imported on first use
)

gc.disable()
for _name in _MODULES:
    importlib.import_module(_name)
gc.collect()
gc.freeze()
gc.enable()
