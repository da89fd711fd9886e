"""The cost of a save by file system: seconds and fsyncs, as ratios to ext4.

    python -m benchmarks.mounts [--rounds 8] [--mib 64] [--only ext4 xfs ...] [--at DIRECTORY]

Mounts whatever this machine can, which needs root: images of ext4, xfs and btrfs on loop devices,
tmpfs, overlayfs, and, if installed, bindfs, mergerfs, fuse-overlayfs and sshfs. The server of the
last is a process here, so its times contain no network. The directories that are passed through,
and the images, are on ``--at``. Ranks are processes on the CPU with a replicated model of a few
parameters, or of ``--mib`` MiB, that write into the same mount; each save is synchronous and
retires one checkpoint. The mounts take turns within a round, and a cell is the median over the
rounds, because the machine may be shared. ``fsyncs`` are those of rank 0 and those of each other
rank, in a save that retires. ``syncfs`` is one sync of the whole file system, relative to the
fsyncs of eight new files of 4 KiB and of their directory that wait together, as in a save. On FUSE
it is quick because it reaches nothing (docs/storage.md). The printed tables are those of
docs/storage.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import SGD

from harness.system.syscalls import syncfs
from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.runtime.storage import at_once
from kempnerforge.config.schema import CheckpointConfig

_IMAGE_BYTES = 1 << 30
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
_WORLDS = (1, 2)


class CannotMountError(Exception):
    """This machine lacks what the mount needs."""


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        raise CannotMountError(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotMountError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def _mounted(at: Path, *command: object) -> Iterator[Path]:
    _run(*command, at)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=False, capture_output=True)


@contextmanager
def _image(place: Path, at: Path, *make: object) -> Iterator[Path]:
    image = place / "image"
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    _run(*make, image)
    with _mounted(at, "mount", "-o", "loop", image) as mounted:
        yield mounted


def _folders(place: Path, *names: str) -> list[Path]:
    for name in names:
        (place / name).mkdir()
    return [place / name for name in names]


def _ext4(place: Path, at: Path) -> Iterator[Path]:
    with _image(place, at, "mkfs.ext4", "-q", "-F") as mounted:
        yield mounted


def _xfs(place: Path, at: Path) -> Iterator[Path]:
    with _image(place, at, "mkfs.xfs", "-q") as mounted:
        yield mounted


def _btrfs(place: Path, at: Path) -> Iterator[Path]:
    with _image(place, at, "mkfs.btrfs", "-q") as mounted:
        yield mounted


def _tmpfs(place: Path, at: Path) -> Iterator[Path]:
    del place
    with _mounted(at, "mount", "-t", "tmpfs", "none") as mounted:
        yield mounted


def _overlayfs(place: Path, at: Path) -> Iterator[Path]:
    """Its upper layer is an image of ext4: an overlay cannot be the upper layer of another."""
    (place / "ext4").mkdir()
    with _image(place, place / "ext4", "mkfs.ext4", "-q", "-F") as image:
        lower, upper, work = _folders(image, "lower", "upper", "work")
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        with _mounted(at, "mount", "-t", "overlay", "overlay", "-o", layers) as mounted:
            yield mounted


def _fuse_overlayfs(place: Path, at: Path) -> Iterator[Path]:
    lower, upper, work = _folders(place, "lower", "upper", "work")
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with _mounted(at, "fuse-overlayfs", "-o", layers) as mounted:
        yield mounted


def _bindfs(place: Path, at: Path) -> Iterator[Path]:
    (real,) = _folders(place, "real")
    with _mounted(at, "bindfs", real) as mounted:
        yield mounted


def _mergerfs(place: Path, at: Path) -> Iterator[Path]:
    (real,) = _folders(place, "real")
    with _mounted(at, "mergerfs", real) as mounted:
        yield mounted


def _sshfs(place: Path, at: Path) -> Iterator[Path]:
    (real,) = _folders(place, "real")
    server = next((path for path in _SFTP_SERVERS if Path(path).exists()), None)
    if server is None:
        raise CannotMountError("sftp-server is not installed")
    instead_of_ssh = place / "ssh"
    instead_of_ssh.write_text(f"#!/bin/sh\nexec {server}\n", encoding="ascii")
    instead_of_ssh.chmod(0o755)
    with _mounted(at, "sshfs", "-o", f"ssh_command={instead_of_ssh}", f"here:{real}") as mounted:
        yield mounted


_KINDS: dict[str, Callable[[Path, Path], Iterator[Path]]] = {
    "ext4": _ext4,
    "xfs": _xfs,
    "btrfs": _btrfs,
    "tmpfs": _tmpfs,
    "overlayfs": _overlayfs,
    "bindfs": _bindfs,
    "mergerfs": _mergerfs,
    "fuse-overlayfs": _fuse_overlayfs,
    "sshfs": _sshfs,
}
"""The others are compared with the first one."""


def _mount(names: Sequence[str], base: Path, mounted: ExitStack) -> dict[str, Path]:
    """Mount what can be mounted; report the rest on stderr."""
    found = {}
    for name in names:
        place, at = base / f"{name}-place", base / name
        for folder in (place, at):
            folder.mkdir()
        try:
            found[name] = mounted.enter_context(contextmanager(_KINDS[name])(place, at))
        except CannotMountError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
    return found


class _Syncs:
    """Counts what this process syncs, by kind."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._genuine = os.fsync
        os.fsync = self._sync  # type: ignore[assignment]

    def _sync(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        self.seen[_name(path)] += 1
        self._genuine(fd)


def _name(path: Path) -> str:
    """Returns the kind of a file or directory in a checkpoint, without numbers and ids."""
    if path.suffix == ".distcp":
        return "shard"
    if path.name.startswith("rank_"):
        return "rank file"
    if path.name.startswith((".staging-", "step_")):
        return "staging directory"
    return "checkpoint directory" if path.name.startswith("world") else path.name


def _manager(directory: Path, mib: int) -> CheckpointManager:
    sizes = [(1, 1)] if mib == 0 else [(512, 512)] * mib
    model = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)
    config = CheckpointConfig(dir=str(directory), keep_last_n=2)
    return CheckpointManager(config, model, SGD(model.parameters(), lr=0.1))


def _measure(directories: dict[str, Path], *, mib: int, rounds: int) -> dict[str, object]:
    """Returns seconds of each save, and the fsyncs of the last, by mount; for every rank."""
    managers = {name: _manager(path, mib) for name, path in directories.items()}
    times: dict[str, list[float]] = {name: [] for name in managers}
    syncs, counted = _Syncs(), {}
    for step in range(1, rounds + 4):  # from the third on, each save retires a checkpoint
        for name, manager in managers.items():
            dist.barrier()
            syncs.seen.clear()
            began = time.perf_counter()
            manager.save(step)
            if step > 3:
                times[name].append(time.perf_counter() - began)
            counted[name] = dict(syncs.seen)
    return {"times": times, "fsyncs": counted}


def _rank(arguments: argparse.Namespace) -> None:
    dist.init_process_group(
        "gloo",
        init_method=arguments.store.as_uri(),
        rank=arguments.rank,
        world_size=arguments.world,
    )
    directories = {name: Path(path) for name, path in json.loads(arguments.directories).items()}
    found = _measure(directories, mib=arguments.mib, rounds=arguments.rounds)
    arguments.store.with_name(f"found-{arguments.rank}").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _all_ranks(
    mounts: dict[str, Path], base: Path, *, world: int, mib: int, rounds: int
) -> list[dict[str, Any]]:
    """Returns the findings of each rank."""
    store = base / f"run-{world}-{mib}" / "store"
    store.parent.mkdir()
    directories = {name: str(path / f"world-{world}-{mib}") for name, path in mounts.items()}
    words = [sys.executable, "-m", "benchmarks.mounts", "--rounds", str(rounds), "--mib", str(mib)]
    words += ["--world", str(world), "--store", str(store)]
    words += ["--directories", json.dumps(directories)]
    ranks = [subprocess.Popen([*words, "--rank", str(rank)]) for rank in range(world)]
    ended = [rank.wait() for rank in ranks]
    if any(ended):
        raise SystemExit("a rank failed; its error is above")
    for directory in directories.values():
        shutil.rmtree(directory)
    return [
        json.loads(store.with_name(f"found-{rank}").read_text(encoding="utf-8"))
        for rank in range(world)
    ]


_FILES = 8


def _syncing(mounts: dict[str, Path], *, rounds: int) -> dict[str, float]:
    """Returns, by mount, one syncfs relative to the fsyncs of a few files and their directory."""
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for name, mount in mounts.items():
            for way in ("fsync", "syncfs"):
                directory = mount / f"{way}-{turn}"
                directory.mkdir()
                for number in range(_FILES):
                    (directory / str(number)).write_bytes(bytes(4096))
                began = time.perf_counter()
                _sync(way, directory)
                if turn:
                    times.setdefault((name, way), []).append(time.perf_counter() - began)
                shutil.rmtree(directory)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {name: medians[name, "syncfs"] / medians[name, "fsync"] for name in mounts}


def _sync(way: str, directory: Path) -> None:
    if way == "syncfs":
        syncfs(str(directory))
        return
    with ExitStack() as opened:
        found = []
        for path in (directory, *directory.iterdir()):
            fd = os.open(path, os.O_RDONLY)
            opened.callback(os.close, fd)
            found.append(fd)
        at_once(*(partial(os.fsync, fd) for fd in found))


Found = dict[tuple[int, int], list[dict[str, Any]]]
"""The findings of each rank, by world and MiB."""


def _seconds(names: Sequence[str], found: Found, syncfs: dict[str, float]) -> Iterator[str]:
    columns = sorted(found, key=lambda key: (key[1], key[0]))
    heads = [f"{f'{mib} MiB' if mib else 'few bytes'}, {_ranks(world)}" for world, mib in columns]
    yield f"| | {' | '.join(heads)} | fsyncs, {_ranks(max(_WORLDS))} | syncfs |"
    yield "|---|" + "--:|" * (len(heads) + 2)
    for name in names:
        cells = []
        for key in columns:
            times = found[key][0]["times"]
            took, unit = (statistics.median(times[one]) for one in (name, names[0]))
            cells.append(f"{took / unit:.2f} ({1000 * took:.0f} ms)")
        ranks = found[max(_WORLDS), 0]
        counts = " + ".join(str(sum(rank["fsyncs"][name].values())) for rank in ranks)
        yield f"| {name} | {' | '.join(cells)} | {counts} | {syncfs[name]:.2f} |"


def _syncs(name: str, ranks: Sequence[dict[str, Any]]) -> Iterator[str]:
    heads = [f"rank {rank}" for rank in range(len(ranks))]
    yield f"| synced in one save | {' | '.join(heads)} |"
    yield "|---|" + "--:|" * len(heads)
    counts = [rank["fsyncs"][name] for rank in ranks]
    for kind in dict.fromkeys(kind for one in counts for kind in one):
        yield f"| {kind} | {' | '.join(str(one.get(kind, '')) for one in counts)} |"


def _ranks(world: int) -> str:
    return "1 rank" if world == 1 else f"{world} ranks"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=list(_KINDS), default=list(_KINDS))
    parser.add_argument("--at", type=Path, default=Path(tempfile.gettempdir()))
    for hidden, kind in (("rank", int), ("world", int), ("store", Path), ("directories", str)):
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        _rank(arguments)
        return
    with (
        tempfile.TemporaryDirectory(dir=arguments.at, prefix="mounts-") as base,
        ExitStack() as mounted,
    ):
        mounts = _mount(arguments.only, Path(base), mounted)
        found = {
            (world, mib): _all_ranks(
                mounts, Path(base), world=world, mib=mib, rounds=arguments.rounds
            )
            for mib in (0, arguments.mib)
            for world in _WORLDS
        }
        names = list(mounts)
        seconds = _seconds(names, found, _syncing(mounts, rounds=arguments.rounds))
        print("\n".join([*seconds, "", *_syncs(names[0], found[max(_WORLDS), 0])]))


if __name__ == "__main__":
    main()
