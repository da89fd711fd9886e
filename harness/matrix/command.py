"""`python -m harness matrix`: reads scenarios and results, and writes the page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.matrix.cell import find_items
from harness.matrix.markdown import page
from harness.matrix.matrix import bring_together
from harness.matrix.results import read_results


def make_page(root: Path, files: Sequence[Path], target: Path | None) -> tuple[str, bool]:
    """Makes the page; returns it, and whether nothing in it fails.

    Raises ScenarioError and ResultsError.
    """
    matrix = bring_together(find_items(root), read_results(files))
    words = ["python", "-m", "harness", "matrix"]
    words += ["--junit", *map(str, files)] if files else []
    words += ["--markdown", str(target)] if target is not None else []
    return page(matrix, shlex.join(words)), not matrix.failing
