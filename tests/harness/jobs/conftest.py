"""One warm process for all tests of the job in a pytest worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.jobs.drive import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Boots on first use, which takes as long as importing torch."""
    server = Warm()
    yield server
    server.close()
