"""Managers that take a read that failed, or a newer format, for what it is not.

No scenario can have a read fail, so these are shown by checks of their own
(``tests/mutants/test_misreading.py``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint import errors
from kempnerforge.checkpoint.format import manifest
from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol import checkpoint_save, register, replacing
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.runtime import stale
from kempnerforge.checkpoint.runtime.storage import LocalStorage


class _Everything:
    def __contains__(self, code: object) -> bool:
        return True


class TakesAReadErrorForDamage(CheckpointManager):
    """Whatever a read raises says that the checkpoint is damaged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        errors._OF_WHAT_IS_THERE = _Everything()  # type: ignore[assignment]
        super().__init__(*args, **kwargs)


class TakesANewerFormatForTorn(CheckpointManager):
    """A manifest of a format that it does not know is none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        genuine = manifest._head_of

        def head_of(body: Any, *, where: str) -> manifest.Head:
            if body["format"] not in manifest.READABLE_FORMATS:
                raise ValueError(f"format {body['format']}")
            return genuine(body, where=where)

        manifest._head_of = head_of
        super().__init__(*args, **kwargs)


class NeverTriesAgain(CheckpointManager):
    """The first error of a read is the last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stale._PAUSES_S = ()  # type: ignore[assignment]
        super().__init__(*args, **kwargs)


class DeletesPastTheUnread(CheckpointManager):
    """Retention goes by what it could read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        def confirm(self: register.Register, root: Path, runtime: Runtime) -> register.Survey:
            return replace(genuine(self, root, runtime), unread=())

        genuine = register.Register.confirm
        register.Register.confirm = confirm  # type: ignore[method-assign]
        super().__init__(*args, **kwargs)


class NumbersPastTheUnread(CheckpointManager):
    """A save has the number after the last one that could be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        setattr(register, "ROOM", 1)  # noqa: B010  # a constant, for mypy
        super().__init__(*args, **kwargs)


class ReplacesTheUnread(CheckpointManager):
    """What cannot be read is as good as not there, so it is replaced."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        checkpoint_save._replaced = lambda *_: None
        super().__init__(*args, **kwargs)


class _SeesNothing(LocalStorage):
    def read_link(self, path: Path) -> str | None:
        try:
            return super().read_link(path)
        except OSError:
            return None

    def read_small(self, path: Path, most_bytes: int) -> bytes | None:
        try:
            return super().read_small(path, most_bytes)
        except OSError:
            return None

    def is_directory(self, path: Path) -> bool:
        try:
            return super().is_directory(path)
        except OSError:
            return False


class SeesNoLinkWhereItMayNotLook(CheckpointManager):
    """A `latest` that cannot be looked at is none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime = replace(self._runtime, storage=stale.RetryingStorage(_SeesNothing()))


class TakesBackBlindly(CheckpointManager):
    """A move that failed was not made, if it cannot be seen whether it was."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        genuine = replacing._took_effect
        replacing._took_effect = lambda *given: bool(genuine(*given))
        super().__init__(*args, **kwargs)
