"""Worker processes that run several jobs at once; each has a fork server of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, TypeVar

from harness.plan.model import Implementation
from harness.run.services import Services
from harness.scenario.devices import count_gpus
from harness.system.parent import die_with_parent
from harness.trial import Bench
from harness.workspace import Workspace

T = TypeVar("T")


class Pool:
    """A context manager: its workers end with it, and waiting work is dropped."""

    def __init__(
        self,
        workspace: Workspace,
        workers: int,
        *,
        implementation: Implementation = Implementation(),  # noqa: B008 - a frozen value
        gpus: int | None = None,
    ) -> None:
        self.workspace, self.workers = workspace, workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(workspace, implementation, count_gpus() if gpus is None else gpus),
        )

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have a worker call `work` with its bench and the arguments."""
        return self._pool.submit(_do, work, arguments)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


_bench: Bench


def _begin(workspace: Workspace, implementation: Implementation, gpus: int) -> None:
    global _bench
    command = multiprocessing.parent_process()
    if command is not None and command.pid is not None:
        die_with_parent(command.pid)
    services = Services(workspace.shared)
    _bench = Bench(services=services, workspace=workspace, implementation=implementation, gpus=gpus)
    Finalize(None, services.close, exitpriority=1)


def _do(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return work(_bench, *arguments)
