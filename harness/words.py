"""The words for points that scenarios, traces and judges share."""

OPERATIONS = (
    "open",
    "read",
    "write",
    "fsync",
    "truncate",
    "mkdir",
    "rmdir",
    "unlink",
    "rename",
    "exchange",
    "symlink",
    "link",
    "sync",
)
"""Kinds of operations, as points name them. In the phase `load` an `open` is for reading, else for
writing; a `read` belongs to that phase."""

LOADING = ("open", "read")
"""The kinds of operations of the phase `load`."""

READS = ("open_read", "read")
"""What traces call an open for reading, and a read. They are there only where a strike asks for
the phase `load`, reads only where it can meet them."""

SAVE_PHASES = ("stage", "flush", "seal", "publish", "prune")
PHASES = (*SAVE_PHASES, "load")
"""The phases of a save in their order, and `load`, which belongs to no save."""

VARIANTS = ("plain", "experts", "hooks", "tied", "lora")
"""What a model may hold in another way than the plain one."""

OPTIMIZERS = ("adamw", "sgd", "muon", "lookahead", "low_bit")
"""What a job may train with."""

FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
"""The file systems whose power can be cut."""

HOSTS = ("first", "other")
"""Where a job may run. The two share the checkpoint directory, and neither lock nor cache."""

ERRORS = (
    "ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "ESTALE", "EINVAL", "ENOMEM", "EMFILE",
)  # fmt: skip
"""The errors that storage can be made to answer."""

EXCEPTIONS = ("RuntimeError", "ValueError", "MemoryError", "KeyboardInterrupt")
"""What can be raised in a training loop."""
