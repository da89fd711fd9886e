"""Where in the package effects may stand: not in the protocol, and storage in few places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kempnerforge" / "checkpoint"

EFFECTS = frozenset(
    {
        *("asyncio", "concurrent", "datetime", "multiprocessing", "random", "secrets", "signal"),
        *("socket", "subprocess", "tempfile", "threading", "time", "uuid"),
    }
)
"""Modules by which a program waits, draws, or learns the time."""
TENSORS = frozenset({"numpy", "torch"})
PURE = ("protocol", "format")

# Python's generator is part of the state of a program that trains.
MAY_HAVE_EFFECTS = {"state/rng.py": {"random"}}

FILE_CALLS = frozenset(
    {
        *("exists", "is_dir", "is_file", "is_symlink", "lstat", "mkdir", "read_bytes", "read_text"),
        *("readlink", "rglob", "rmdir", "symlink_to", "touch", "write_bytes", "write_text"),
        *("absolute", "chmod", "cwd", "expanduser", "glob", "hardlink_to", "iterdir"),
        *("samefile", "stat", "walk"),
    }
)
"""Methods of a path that look at a file, or change one, and are not methods of ``Storage``.

Those that both have, such as ``rename``, cannot be told by their names.
"""
OS_NAMES = frozenset({"strerror", "fspath", "fsencode", "sep", "PathLike"})
"""What of ``os`` touches no file and no process."""
TOUCH_FILES = ("runtime", "bulk/reading.py")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    """The top names of all that is imported, wherever in the module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def _mode(called: ast.Call) -> bool:
    """Whether a mode is named; what else is opened is a checkpoint."""
    return bool(called.args) and isinstance(called.args[0], ast.Constant)


def touches(tree: ast.Module) -> set[str]:
    """Calls that open, look at or change files without a :class:`Storage`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os" and node.attr not in OS_NAMES:
                found.add(f"os.{node.attr}")
            elif node.value.id in ("shutil", "fcntl", "mmap"):
                found.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            found |= {f"os.{one.name}" for one in node.names if one.name not in OS_NAMES}
        if isinstance(node, ast.Import):
            found |= {
                f"os as {one.asname}" for one in node.names if one.name == "os" and one.asname
            }
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id == "open":
                found.add("open")
            elif isinstance(called, ast.Attribute) and called.attr in FILE_CALLS:
                found.add(f".{called.attr}")
            elif isinstance(called, ast.Attribute) and called.attr == "open" and _mode(node):
                found.add(".open")
    return found


def test_the_protocol_and_the_formats_have_no_effects_and_know_no_tensors() -> None:
    pure = {name: tree for name, tree in modules() if name.split("/")[0] in PURE}
    assert len(pure) > 20
    for name, tree in pure.items():
        assert not imported(tree) & (EFFECTS | TENSORS), name


def test_time_chance_and_threads_stand_in_the_runtime() -> None:
    for name, tree in modules():
        if name.startswith("runtime/"):
            continue
        allowed = MAY_HAVE_EFFECTS.get(name, set())
        assert imported(tree) & EFFECTS == allowed, name


def test_files_are_touched_by_storage_and_by_what_reads_tensors_only() -> None:
    for name, tree in modules():
        if not name.startswith(TOUCH_FILES):
            assert not touches(tree), name


def grows(tree: ast.Module) -> list[int]:
    """Lines of names of the module that begin as empty containers."""
    found = []
    for node in tree.body:
        value = node.value if isinstance(node, ast.AnnAssign | ast.Assign) else None
        is_empty_call = (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and (
                value.func.id in {"Counter", "OrderedDict", "count", "defaultdict", "deque"}
                or (value.func.id in {"set", "dict", "list"} and not value.args)
            )
        )
        if (
            is_empty_call
            or (isinstance(value, ast.Dict) and not value.keys)
            or (isinstance(value, ast.List) and not value.elts)
        ):
            found.append(node.lineno)
    return found


def test_no_module_of_the_protocol_keeps_state_of_the_process() -> None:
    for name, tree in modules():
        if name.split("/")[0] in PURE:
            assert not grows(tree), name
    kept = "seen: set[str] = set()\ncache = {}\nnames = ('a',)\nwaiting = deque(maxlen=3)"
    assert grows(ast.parse(kept)) == [1, 2, 4]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\n", {"time"}),
        ("def f():\n    from random import choice\n", {"random"}),
        ("import torch.nn as nn\n", {"torch"}),
        ("from pathlib import Path\n", {"pathlib"}),
    ],
)
def test_an_import_is_found_wherever_it_stands(source: str, found: set[str]) -> None:
    assert imported(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("os.lstat(path)", {"os.lstat", ".lstat"}),
        ("path.read_bytes()", {".read_bytes"}),
        ("open(path)", {"open"}),
        ('path.open("rb")', {".open"}),
        ("path.stat().st_size", {".stat"}),
        ("Path.cwd()", {".cwd"}),
        ("from os import stat", {"os.stat"}),
        ("import os as system", {"os as system"}),
        ("storage.read(path)", set()),
        ("os.strerror(5)", set()),
    ],
)
def test_a_call_that_touches_a_file_is_found(source: str, found: set[str]) -> None:
    assert touches(ast.parse(source)) == found
