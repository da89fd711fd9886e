"""Which operations a strike counts, where its point does not name their kind."""

from __future__ import annotations

import pytest

from harness.run.strikes import Due, Occasion
from tests.harness.strikes import strike

KINDS = ("open", "fsync", "exchange", "write", "unlink")


@pytest.mark.parametrize(
    ("error", "operation", "hits"),
    [
        ("ENOSPC", None, ["open", "write"]),
        ("EIO", None, list(KINDS)),
        ("EINVAL", None, ["exchange"]),
        ("ENOSPC", "fsync", ["fsync"]),
    ],
)
def test_an_error_falls_where_a_file_system_could_answer_it_unless_told(
    error: str, operation: str | None, hits: list[str]
) -> None:
    found = []
    for kind in KINDS:
        due = Due.of([strike("fail", {"error": error}, operation=operation, path="*")])
        occasion = Occasion(rank=0, kind=kind, path="d/a", target=None, save=None, phase=None)
        if due.at_operation(occasion):
            found.append(kind)
    assert found == hits
