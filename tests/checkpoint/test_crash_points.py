"""A process that dies before any single storage operation of rank 0 loses nothing.

The storage is stopped before its n-th changing operation, for every n, by an exception that no
handler of the package catches as an error. The next run starts from what that leaves on disk.
(The scenarios cover deaths inside a write, and of other ranks.)
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import State, read_catalog
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.effects import give
from tests.checkpoint.training import Job

CHANGING = (
    "make_directory",
    "make_durable_directory",
    "write",
    "sync_directory",
    "rename",
    "exchange",
    "make_link",
    "unlink",
    "remove_tree",
)


class Death(BaseException):
    """The process is gone."""


class DyingStorage(LocalStorage):
    """Dies before its n-th operation that changes something."""

    def __init__(self, survives: int, *, exchanges: bool) -> None:
        self.survives = survives
        self.begun = itertools.count()  # counts in one step, because threads write at once
        self.exchanges = exchanges

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return self._counted(found) if name in CHANGING else found

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if next(self.begun) >= self.survives:
                raise Death
            if operation.__name__ == "exchange" and not self.exchanges:
                return False
            return operation(*args)

        return run


def saved_until_death(directory: Path, survives: int, steps: list[int], exchanges: bool) -> int:
    """Versions saved before the process died; all of them if it did not."""
    job = Job(directory, 0, seed=1, keep_last_n=1)
    give(job.manager, storage=DyingStorage(survives, exchanges=exchanges))
    for done, step in enumerate(steps):
        try:
            job.save(step, version=done + 1)
        except Death:
            return done
    return len(steps)


@pytest.mark.parametrize("exchanges", [True, False])
def test_after_a_death_before_any_operation_the_last_save_or_a_newer_one_loads(
    tmp_path: Path, exchanges: bool
) -> None:
    steps = [1, 2, 2, 3]  # the third replaces a checkpoint, each prunes
    states = set()
    for survives in range(1000):
        directory = tmp_path / str(survives)
        told = saved_until_death(directory, survives, steps, exchanges)
        states.add(told)
        root = directory / "checkpoints"
        for entry in read_catalog(root, LocalStorage()).entries:
            assert entry.state is State.committed
        link = root / layout.LATEST
        if exchanges and link.is_symlink():
            assert (link / layout.MANIFEST).exists()
        found = resolve_resume_path(root)
        job = Job(directory, 0, seed=2, keep_last_n=1)
        step, _, extra = job.load()
        assert told <= extra.get("version", 0) <= told + 1
        assert (found is None) == (step == 0)
        job.save(4)
        assert sorted(path.name for path in root.iterdir()) == ["latest", "step_4"]
        if told == len(steps):
            break
    assert states == {0, 1, 2, 3, 4}
