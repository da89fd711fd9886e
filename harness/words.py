"""The words that scenarios, traces and judges share."""

from enum import StrEnum

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
"""Kinds of operations, as points name them. In the phase `load` an `open` is for reading, otherwise
for writing; a `read` belongs to that phase."""

LOADING = ("open", "read")
"""The kinds of operations of the phase `load`."""

READS = ("open_read", "read")
"""The names of an open for reading and of a read in traces. Opens are only traced if a strike asks
for the phase `load`, reads only if it can hit them."""

SAVE_PHASES = ("stage", "flush", "seal", "publish", "prune")
PHASES = (*SAVE_PHASES, "load")
"""The phases of a save in their order, and `load`, which belongs to no save."""

PERIODS = ("building", "loading", "training", "evaluation", "ending")
"""The periods of a rank's life outside of steps and saves, in their order; a rank records when it
enters one. `building` ends when the manager and the handlers of signals are there."""

VARIANTS = ("plain", "experts", "hooks", "tied", "lora", "idle", "buffers")
"""Variants of the model."""

OPTIMIZERS = ("adamw", "sgd", "muon", "lookahead", "low_bit")
"""Optimizers of the job."""

PROPERTIES = (
    "latest_durable",
    "whole_or_absent",
    "nothing_lost",
    "agreement",
    "resume_exact",
    "samples_exactly_once",
    "freeze_consistent",
    "retention",
    "bounded",
    "clean",
    "integrity",
    "no_code_on_load",
    "latest_forward",
)
"""The properties, in the order of reports; each is a module of `harness.judge.properties`."""

DIRECTORY_WORD = "{dir}"
"""Stands in a command for the directory that it writes its checkpoints to."""

STEP_WORD = "{step}"
"""Stands for the step in the name of a checkpoint, where a user gives one."""

PYTHON_WORD = "{python}"
"""Stands in a scenario's command for the interpreter that runs the harness."""

FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
"""The file systems whose power can be cut."""

HOSTS = ("first", "other")
"""Where a job can run. The two share the checkpoint directory, and neither lock nor cache."""

ERRORS = (
    "ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "ESTALE", "EINVAL", "ENOMEM", "EMFILE",
)  # fmt: skip
"""The errors that storage can be made to answer."""

EXCEPTIONS = ("RuntimeError", "ValueError", "MemoryError", "KeyboardInterrupt")
"""Exceptions that can be raised in a training loop."""


class EvidenceKind(StrEnum):
    """The kinds of evidence that a job can give. Facts that the operating system reports about
    processes, and the harness about its own faults and operators, are always there and not a
    kind."""

    TREE = "tree"
    """The operations on the checkpoint directory with their bytes, and its contents after a run."""
    RESUMES = "resumes"
    """The checkpoint from which each rank resumed, or the error that kept it from resuming."""
    ACKNOWLEDGEMENTS = "acknowledgements"
    """The saves that each rank began, and which of them returned, became durable or failed."""
    TRAINING = "training"
    """Loss, learning rate, samples and digests of the state after each training step."""
    ENDS = "ends"
    """How the training loop of each rank ended."""
    REFERENCE = "reference"
    """The uninterrupted run of the same workload."""
