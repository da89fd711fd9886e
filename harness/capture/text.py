"""A captured directory as a file: the scenario, and in comments what it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.capture.capture import Captured
from harness.report.failure import scenario_text
from kempnerforge.cli.cleaning import clean


def captured_text(captured: Captured) -> str:
    """The text of the file. Every line of a comment is one line, whatever names it holds."""
    return "\n".join([*_comments(captured), scenario_text(captured.scenario)])


def _comments(captured: Captured) -> Iterator[str]:
    yield from _part(f"captured from {captured.directory}", captured.found)
    yield from _part("another job than the one that was found", captured.smaller)
    yield from _part("not expressed below", captured.unexpressed)
    yield from _part("could not be read", captured.unreadable)
    yield "# not known from a checkpoint, so as by default: model, data, async_mode, keep_last_n"


def _part(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield f"# {clean(title)}:"
        yield from (f"#   {clean(line)}" for line in found)
