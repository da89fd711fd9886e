"""How long a save or a load may take where nobody says otherwise."""

__all__ = ["DEFAULT_COMMIT_TIMEOUT_S"]

# Long enough for a shared file system that is slow but alive, short enough that a job scheduler's
# hour is not lost to one dead rank.
DEFAULT_COMMIT_TIMEOUT_S = 600.0
