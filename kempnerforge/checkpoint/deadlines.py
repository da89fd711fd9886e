"""The default time limit of a save or a load."""

__all__ = ["DEFAULT_COMMIT_TIMEOUT_S"]

# Long enough for a slow shared file system, short enough that one dead rank does not waste an hour
# of the allocation.
DEFAULT_COMMIT_TIMEOUT_S = 600.0
