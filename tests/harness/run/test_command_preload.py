"""What the fork server of a command imports finds, and leaves, the garbage collector as usual."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from harness.boot.command_server import preload

USUAL = gc.get_threshold()


@pytest.mark.parametrize(
    ("text", "threshold"), [("", USUAL), ("import gc\ngc.set_threshold(5, 6, 7)\n", (5, 6, 7))]
)
def test_a_module_may_set_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, threshold: tuple[int, int, int]
) -> None:
    (tmp_path / "theirs.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        preload(["none_of_this_name", "theirs"])
        assert "theirs" in sys.modules
        assert (gc.get_threshold(), gc.isenabled()) == (threshold, True)
    finally:
        gc.set_threshold(*USUAL)
        del sys.modules["theirs"]
