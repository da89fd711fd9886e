"""Packs wheels for a machine that reaches no package registry: fetched here, installed there.

It fetches what the extra `harness` needs, in the versions installed here, except for torch and
numpy, which the machine must have and which must fit its driver.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

_THERE = {"torch", "numpy"}
_PROJECT = "kempnerforge-checkpoint"
_GLIBC = (17, 24, 27, 28, 31, 34)
"""Minor versions of glibc that wheels are built for; pip accepts only those that are named."""


def pack(folder: Path, python: str) -> list[str]:
    """Fetches the wheels for a version of Python on x86-64; returns their names."""
    shutil.rmtree(folder, ignore_errors=True)
    wanted = [f"{one.name}=={one.version}" for one in needed()]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    words += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in (*(f"manylinux_2_{minor}_x86_64" for minor in _GLIBC), "manylinux2014_x86_64"):
        words += ["--platform", platform]
    subprocess.run([*words, "--dest", str(folder), *wanted], check=True)
    return sorted(path.name for path in folder.iterdir())


def needed() -> tuple[Distribution, ...]:
    """Returns the packages of the extra `harness` and their dependencies, as installed here."""
    found: dict[str, Distribution] = {}
    waiting = list(_requirements(distribution(_PROJECT), extra="harness"))
    while waiting:
        name = waiting.pop()
        if name in found or name in _THERE:
            continue
        found[name] = distribution(name)
        waiting += _requirements(found[name])
    return tuple(found[name] for name in sorted(found))


def _requirements(of: Distribution, extra: str = "") -> Iterator[str]:
    from packaging.requirements import Requirement

    for text in of.requires or ():
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            yield re.sub(r"[-_.]+", "-", one.name).lower()


def install(folder: Path) -> Path:
    """Installs the wheels of the folder beside this Python's packages; returns their place."""
    site = Path(os.environ["GPU_SUITE_SITE"])
    shutil.rmtree(site, ignore_errors=True)
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels:
        raise SystemExit(f"{folder} holds no wheels; make them with: gpu_suite.sh pack")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*words, "--target", str(site), *wheels], check=True)
    return site
