"""Shortens tracebacks and stacks to the frames that a maintainer of the implementation knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_HARNESS = f"{Path(__file__).resolve().parents[1]}/"
_LIBRARIES = re.compile(r"/(?:site|dist)-packages/|/lib/python3[.\d]*/|^<|^/usr/lib/python3")
_RAISED = re.compile(r'^\s+File "([^"]+)", line (\d+)(?:, in (.+))?$')
_STOOD = re.compile(r'^\s+File "([^"]+)", line (\d+) in (.+)$')


def is_of_implementation(path: str, module: str) -> bool:
    """Whether a source file is of the implementation: of its package, wherever that is installed,
    or neither a library's nor the harness's own."""
    package = module.partition(".")[0]
    if f"/{package}/" in path or path.endswith(f"/{package}.py"):
        return True
    return not path.startswith(_HARNESS) and _LIBRARIES.search(path) is None


def short_traceback(trace: str, module: str, *, most: int) -> list[str]:
    """Returns the last frames of a traceback that are of the implementation, each with its source.

    `module` is that of the implementation. If there is no such frame, the last one stands for them.
    """
    lines = trace.rstrip().splitlines()
    frames = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    wanted = [
        number for number in frames if is_of_implementation(_path(lines[number], _RAISED), module)
    ]
    found: list[str] = []
    for number in (wanted or frames[-1:])[-most:]:
        found.append(lines[number])
        source = lines[number + 1 : number + 2]
        found += [line for line in source if not _RAISED.match(line) and line.startswith("    ")]
    return found


def short_stacks(text: str, module: str, *, most: int) -> list[str]:
    """Returns one line for each thread of a dump of faulthandler, the main thread first.

    A line holds the innermost frames of the implementation; threads in which it has none are left
    out, except the main one, whose innermost frame stands for it.
    """
    threads = [
        part for part in re.split(r"\n(?=(?:Current t|T)hread 0x)", f"\n{text}") if part.strip()
    ]
    # faulthandler lists the main thread last.
    found = [
        _short_stack(part, module, most, is_main=not place)
        for place, part in enumerate(threads[::-1])
    ]
    return [line for line in found if line is not None]


def _short_stack(part: str, module: str, most: int, *, is_main: bool) -> str | None:
    frames = [match.groups() for line in part.splitlines() if (match := _STOOD.match(line))]
    wanted = [frame for frame in frames if is_of_implementation(frame[0], module)]
    if not frames or not (wanted or is_main):
        return None
    inside = f"{frames[0][2]} <- " if wanted and wanted[0] != frames[0] else ""
    where = " <- ".join(
        f"{_brief(path)}:{line} {name}" for path, line, name in (wanted or frames)[:most]
    )
    return f"{'main thread' if is_main else 'a thread'}: {inside}{where}"


def _brief(path: str) -> str:
    """Returns the last two parts of a path, which are enough to find a file."""
    return "/".join(Path(path).parts[-2:])


def _path(line: str, pattern: re.Pattern[str]) -> str:
    match = pattern.match(line)
    return match[1] if match else ""


_LOST = re.compile(
    r"connection (?:closed|reset|refused)|broken pipe|socket|peer|gloo|nccl|store|timed? ?out",
    re.IGNORECASE,
)


def is_consequence(kind: str, message: str) -> bool:
    """Whether an error says only that another rank is gone, and so is not the cause."""
    first: Sequence[str] = message.splitlines()[:1]
    return kind.startswith(("Dist", "Connection", "BrokenPipe")) or (
        kind == "RuntimeError" and bool(first) and _LOST.search(first[0]) is not None
    )
