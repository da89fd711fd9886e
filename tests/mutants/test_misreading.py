"""Each manager that misreads is caught by its check, which the package passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.ranks import run_ranks
from tests.mutants import misreading
from tests.mutants.catalogue import MISREAD, Misread
from tests.mutants.entry import PACKAGE
from tests.mutants.misreading_jobs import run


@pytest.mark.parametrize("bug", MISREAD, ids=str)
def test_the_check_is_red_for_the_bug_and_green_for_the_package(
    bug: Misread, tmp_path: Path
) -> None:
    (sound,) = run_ranks(run, tmp_path / "sound", PACKAGE, bug.check, world=1)
    assert sound == bug.right
    (found,) = run_ranks(run, tmp_path / "mutants", bug.implementation, bug.check, world=1)
    assert found == bug.wrong


def test_every_manager_that_misreads_is_in_the_catalogue() -> None:
    classes: dict[str, Any] = {
        name: found
        for name, found in vars(misreading).items()
        if isinstance(found, type) and found.__module__ == misreading.__name__ and name[0] != "_"
    }
    assert classes.keys() == {bug.manager for bug in MISREAD}
    assert all(found.__doc__ for found in classes.values())
