"""A whole exploration, with several strikes at once: each worker process has a warm server."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing.util import Finalize

from harness.run.parent import die_with_parent
from harness.run.services import Services
from harness.search.explore.explore import choose_points, ends, strike_until_clean
from harness.search.explore.job import Explored
from harness.search.explore.points import Candidate, Choice
from harness.search.explore.strike import Struck, strike
from harness.search.explore.summary import Summary
from harness.workspace import Workspace

Progress = Callable[[int, int, Struck], None]
"""Called with how many strikes are done, how many there are, and the newest."""

_workspace: Workspace
_services: Services


def explore_all(
    job: Explored, *, workspace: Workspace, workers: int, merge: bool, progress: Progress
) -> Summary:
    """Strike everything that is chosen. Raises RedRecording."""
    with ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(workspace,),
    ) as pool:
        choice = pool.submit(_choose, job, merge).result()
        coming: list[Future[tuple[Struck, ...]]] = [
            pool.submit(_strike, job, candidate) for candidate in choice.chosen
        ]
        coming += [pool.submit(_until_clean, job, end) for end in ends(job, choice)]
        try:
            for done, future in enumerate(as_completed(coming), 1):
                progress(done, len(coming), future.result()[-1])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        struck = [one for future in coming for one in future.result()]
    return Summary(job=job, choice=choice, struck=tuple(struck))


def open_services(workspace: Workspace) -> Services:
    """The resources of a worker of a pool; it dies with the command."""
    command = multiprocessing.parent_process()
    if command is not None and command.pid is not None:
        die_with_parent(command.pid)
    services = Services(workspace.shared)
    Finalize(None, services.close, exitpriority=1)
    return services


def _begin(workspace: Workspace) -> None:
    global _workspace, _services
    _workspace, _services = workspace, open_services(workspace)


def _choose(job: Explored, merge: bool) -> Choice:
    return choose_points(job, _services, merge=merge)


def _strike(job: Explored, candidate: Candidate) -> tuple[Struck, ...]:
    return (strike(job, candidate, services=_services, workspace=_workspace),)


def _until_clean(job: Explored, end: Candidate) -> tuple[Struck, ...]:
    return strike_until_clean(job, end, services=_services, workspace=_workspace)
