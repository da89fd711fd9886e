"""Operations at random over few names, so that they meet: what no checkpointer would do as well."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from harness.disk.profiles import BLOCK_BYTES
from harness.disk.tree import Directory, File, FileSystem, TreeNode
from tests.harness.judge.cases import RunCase

FILES = ("write", "write", "truncate", "sync", "sync", "move", "remove", "link")
"""Operations on files, within directories that stay."""

TREES = (*FILES, "move", "carry", "carry", "make", "remove folder", "symlink", "sync all")
"""These, and operations on directories."""

_NAMES = ("a", "b", "c")


def random_run(chance: Random, length: int = 60, kinds: Sequence[str] = FILES) -> RunCase:
    """A run that does one thing after another, each of them possible."""
    run, files = RunCase(), FileSystem()
    for folder in ("one", "two"):
        run.do("mkdir", folder)
    done = 0
    for _ in range(length):
        for operation in run.operations[done:]:
            files.apply(operation, bytes(run.written))
        done = len(run.operations)
        _do_something(run, files, chance, kinds)
    return run


def _do_something(run: RunCase, files: FileSystem, chance: Random, kinds: Sequence[str]) -> None:
    folders = sorted(path for path, node in files.nodes() if isinstance(node, Directory))
    starts = ("", *(f"{folder}/" for folder in folders))
    path, other = (chance.choice(starts) + chance.choice(_NAMES) for _ in range(2))
    node, there = files.find(path, follow=False), files.find(other, follow=False)
    kind = chance.choice(kinds)
    match kind:
        case "sync" if isinstance(node, File) and chance.random() < 0.6:
            run.do("fsync", path)
        case "sync":
            run.do("fsync", chance.choice((".", *folders)))
        case "sync all":
            run.do("sync", ".")
        case "write" if node is None or isinstance(node, File):
            data = chance.randbytes(chance.choice((10, BLOCK_BYTES, 3 * BLOCK_BYTES + 5)))
            _write(run, path, data, new=node is None, chance=chance)
        case "make" if node is None:
            run.do("mkdir", path)
        case "symlink" if node is None:
            run.do("symlink", path, chance.choice(_NAMES))
        case "truncate" if isinstance(node, File):
            run.do("truncate", path, size=chance.choice((0, 100, 2 * BLOCK_BYTES)))
        case "link" if isinstance(node, File) and there is None:
            run.do("link", path, other)
        case "carry" | "remove folder" if isinstance(node, Directory):
            _change_folder(run, kind, (path, node), (other, there))
        case "move" | "remove" if node is not None and not isinstance(node, Directory):
            _change_file(run, kind, path, (other, there), swaps=chance.random() < 0.5)


def _change_file(
    run: RunCase, kind: str, path: str, other: tuple[str, TreeNode | None], *, swaps: bool
) -> None:
    target, there = other
    if kind == "remove":
        run.do("unlink", path)
    elif path != target and not isinstance(there, Directory):
        run.do("exchange" if swaps and there is not None else "rename", path, target)


def _change_folder(
    run: RunCase, kind: str, folder: tuple[str, Directory], other: tuple[str, TreeNode | None]
) -> None:
    (path, node), (target, there) = folder, other
    around = isinstance(there, Directory) and path.startswith(f"{target}/")
    if kind == "remove folder" and not node.entries:
        run.do("rmdir", path)
    elif kind == "carry" and path != target and not target.startswith(f"{path}/") and not around:
        run.do("rename" if there is None else "exchange", path, target)


def _write(run: RunCase, path: str, data: bytes, *, new: bool, chance: Random) -> None:
    run.do("open", path, creates=new, truncates=new or chance.random() < 0.3)
    place = len(run.written)
    run.written += data
    offset = 0 if new else chance.choice((0, 7, BLOCK_BYTES, 5 * BLOCK_BYTES))
    run.do("write", path, offset=offset, size=len(data), data=place)
