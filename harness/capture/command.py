"""The command `capture`: reads a directory, writes the scenario."""

from __future__ import annotations

from pathlib import Path

from harness.capture.capture import Captured, capture
from harness.capture.text import captured_text
from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.cli.cautious import CautiousStorage


class CaptureError(Exception):
    """The directory cannot be captured, or the file not be written; its text says why."""


def capture_directory(root: Path, output: Path | None, *, deep: bool) -> tuple[Captured, str]:
    """The captured directory and its text, which also goes to a new file if one is named.

    Raises CaptureError.
    """
    if not root.is_dir():
        raise CaptureError(f"{root} is not a directory")
    try:
        captured = capture(root, CautiousStorage(), deep=deep)
        text = captured_text(captured)
        if output is not None:
            with output.open("x", encoding="utf-8") as file:
                file.write(text)
    except (CheckpointError, OSError, ValueError) as error:
        raise CaptureError(str(error)) from error
    return captured, text
