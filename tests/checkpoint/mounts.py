"""Creates real mounts for tests; skips the test, with the reason, where that is not allowed.

A mount is visible to this process and its children. It is unmounted lazily with the context, so a
descriptor that is still open keeps nothing mounted.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(*command: object, at: Path) -> Iterator[Path]:
    """Run a command that mounts something at ``at``."""
    _run(*command, at)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=False, capture_output=True)


def need(*programs: str) -> None:
    """Skip where one is missing, or we are not root."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def need_fuse(program: str) -> None:
    """Skip where a FUSE file system cannot be mounted."""
    need(program)
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is not there")


@contextmanager
def passed_through(program: str, real: Path, at: Path, *options: str) -> Iterator[Path]:
    """``real`` seen through ``bindfs`` or ``mergerfs``."""
    need_fuse(program)
    for directory in (real, at):
        directory.mkdir(exist_ok=True)
    with mounted(program, *options, real, at=at):
        yield at


@contextmanager
def image(path: Path, at: Path) -> Iterator[Path]:
    """An ext4 file system in a file, which is made unless it is there."""
    need("mkfs.ext4")
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(64 << 20)
        _run("mkfs.ext4", "-q", "-F", path)
    at.mkdir(exist_ok=True)
    with mounted("mount", "-o", "loop", path, at=at):
        yield at


@contextmanager
def memory(at: Path) -> Iterator[Path]:
    """A new file system in memory."""
    need()
    at.mkdir(exist_ok=True)
    with mounted("mount", "-t", "tmpfs", "none", at=at):
        yield at


@contextmanager
def overlay(lower: Path, upper: Path, at: Path, *options: str) -> Iterator[Path]:
    """An overlay file system; changes go below ``upper``, which must not be on an overlay."""
    need()
    for directory in (upper / "data", upper / "work", at):
        directory.mkdir(exist_ok=True)
    layers = f"lowerdir={lower},upperdir={upper / 'data'},workdir={upper / 'work'}"
    with mounted("mount", "-t", "overlay", "overlay", "-o", ",".join((layers, *options)), at=at):
        yield at


def _run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


@contextmanager
def two_hosts(directory: Path) -> Iterator[tuple[Path, Path]]:
    """One directory as two hosts see it, which share no lock."""
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(passed_through("bindfs", directory / "real", directory / name))
            for name in ("host1", "host2")
        )
        yield one, other
