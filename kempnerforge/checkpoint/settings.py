"""The configuration of a manager: the documented fields, and this package's own with defaults."""

from collections.abc import Sequence
from typing import Any, Protocol

from kempnerforge.checkpoint.deadlines import DEFAULT_COMMIT_TIMEOUT_S

__all__ = ["CheckpointSettings", "Settings"]


class CheckpointSettings(Protocol):
    """The fields that a configuration must have; any object with them is accepted."""

    dir: str
    async_mode: Any
    """A member of ``AsyncCheckpointMode``, or its value."""
    keep_last_n: int

    def is_dynamic_milestone(self, step: int) -> bool:
        """Whether the checkpoint of ``step`` is exempt from retention."""


class Settings:
    """A configuration with a default for each optional field that it lacks.

    Fields are read on each access, so changes of the configuration take effect. Their meaning and
    values are documented in ``kempnerforge.config.checkpoint``.
    """

    def __init__(self, config: CheckpointSettings) -> None:
        self.given = config

    @property
    def timeout_s(self) -> float:
        return float(self._optional("commit_timeout_s", default=DEFAULT_COMMIT_TIMEOUT_S))

    @property
    def direct_io(self) -> bool:
        return bool(self._optional("direct_io", default=True))

    @property
    def latest(self) -> str:
        return str(self._optional("latest", default="link"))

    @property
    def follow_moved_dir(self) -> bool:
        return bool(self._optional("follow_moved_dir", default=False))

    @property
    def exclude_from_loading(self) -> Sequence[str]:
        return tuple(self._optional("exclude_from_loading", default=()))

    @property
    def ignore_freeze_mismatch(self) -> bool:
        return bool(self._optional("ignore_freeze_mismatch", default=False))

    @property
    def load_path(self) -> str | None:
        path: str | None = self._optional("load_path", default=None)
        return path

    @property
    def check_restored(self) -> str:
        return str(self._optional("check_restored", default="sample"))

    @property
    def verify_on_load(self) -> str:
        return str(self._optional("verify_on_load", default="full"))

    @property
    def allow_unsafe_pickle(self) -> bool:
        return bool(self._optional("allow_unsafe_pickle", default=False))

    def _optional(self, name: str, *, default: object) -> Any:
        return getattr(self.given, name, default)
