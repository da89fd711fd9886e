"""Checks whether files are complete: those of torch's DCP, and those of unknown meaning."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from harness.content import Content
from harness.layouts.archive import METADATA, Reading, read_json, read_shards, read_torch_file
from harness.layouts.tree import Tree


def below(path: str) -> str:
    """Returns a path relative to its checkpoint."""
    return path.partition("/")[2]


def read_file(tree: Tree, path: str, fact: str, read: Callable[[Content], Reading]) -> Reading:
    """Returns the result of `read` for a file, which is cached as `fact`."""
    if tree.kind(path) != "file":
        return Reading(error="missing")
    return tree.content(path).fact(fact, read)


def shard_defects(tree: Tree, name: str, folder: str) -> list[str]:
    """Returns defects of the files of torch's DCP in a folder of the checkpoint `name`."""
    path = f"{folder}/{METADATA}"
    reading = read_file(tree, path, "shards", read_shards)
    if reading.error is not None:
        return [f"{below(path)} is {reading.error}"]
    defects: list[str] = []
    for shard, end in sorted(reading.value.items()):
        place = posixpath.normpath(f"{folder}/{shard}")
        if not place.startswith(name + "/"):
            defects.append(f"{below(path)} names {shard}, outside of the checkpoint")
        elif tree.kind(place) != "file":
            defects.append(f"{below(place)} is missing")
        elif (size := tree.content(place).size) < end:
            defects.append(f"{below(place)} has {size} of at least {end} bytes")
    return defects


def own_defects(tree: Tree, path: str) -> list[str]:
    """Returns defects of files that only the implementation knows, if they are incomplete."""
    if path.endswith(".json"):
        reading = read_file(tree, path, "json", read_json)
    elif path.endswith((".pt", ".pth")):
        reading = read_file(tree, path, "torch", read_torch_file)
    else:
        return []
    return [] if reading.error is None else [f"{below(path)} is {reading.error}"]
