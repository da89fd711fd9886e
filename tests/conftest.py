"""What tests of several folders share: a fork server for each worker, and references for all."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from harness.run.services import Services
from harness.run.support import missing

# How long an example takes says more about who shares the cores than about the code.
settings.register_profile(
    "shared cores", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared cores")

_FENCE_S = 900
"""For a test of real jobs, which wait by the clock of the run: it stands where they cannot run."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector off what is imported: it stays, and is large."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the fence of tests that start jobs to where no loaded machine comes to it."""
    for item in items:
        starts_jobs = "services" in getattr(item, "fixturenames", ())
        if starts_jobs and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_FENCE_S))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Real jobs; skips where this machine cannot run them."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with Services(shared / "services") as found:
        yield found
