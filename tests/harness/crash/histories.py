"""Operations at random over few names, so that they meet: what no checkpointer would do as well."""

from __future__ import annotations

from random import Random

from harness.disk.profiles import BLOCK_BYTES
from harness.disk.tree import Directory, File, FileSystem
from tests.harness.judge.cases import RunCase

_FOLDERS = ("", "one/", "two/")
_NAMES = ("a", "b", "c")


def random_run(chance: Random, length: int = 60) -> RunCase:
    """A run that does one thing after another, each of them possible."""
    run, files = RunCase(), FileSystem()
    for folder in ("one", "two"):
        run.do("mkdir", folder)
    done = 0
    for _ in range(length):
        _do_something(run, files, chance)
        for operation in run.operations[done:]:
            files.apply(operation, bytes(run.written))
        done = len(run.operations)
    return run


def _do_something(run: RunCase, files: FileSystem, chance: Random) -> None:
    path, other = (chance.choice(_FOLDERS) + chance.choice(_NAMES) for _ in range(2))
    node = files.find(path, follow=False)
    there = files.find(other, follow=False) is not None
    match chance.choice(("write", "write", "truncate", "sync", "sync", "move", "remove", "link")):
        case "write":
            data = chance.randbytes(chance.choice((10, BLOCK_BYTES, 3 * BLOCK_BYTES + 5)))
            _write(run, path, data, new=node is None, chance=chance)
        case "truncate" if isinstance(node, File):
            run.do("truncate", path, size=chance.choice((0, 100, 2 * BLOCK_BYTES)))
        case "sync":
            if isinstance(node, File) and chance.random() < 0.6:
                run.do("fsync", path)
            else:
                run.do("fsync", chance.choice((".", "one", "two")))
        case "move" if node is not None and not isinstance(node, Directory) and path != other:
            run.do("exchange" if there and chance.random() < 0.5 else "rename", path, other)
        case "remove" if node is not None:
            run.do("unlink", path)
        case "link" if isinstance(node, File) and not there:
            run.do("link", path, other)


def _write(run: RunCase, path: str, data: bytes, *, new: bool, chance: Random) -> None:
    run.do("open", path, creates=new, truncates=new or chance.random() < 0.3)
    place = len(run.written)
    run.written += data
    offset = 0 if new else chance.choice((0, 7, BLOCK_BYTES, 5 * BLOCK_BYTES))
    run.do("write", path, offset=offset, size=len(data), data=place)
