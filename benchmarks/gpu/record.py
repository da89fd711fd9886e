"""Records what each step found, with the machine, the versions and the date."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "numpy",
    "torchdata",
    "pytest",
    "pytest-xdist",
    "pydantic",
    "nvidia-nccl-cu13",
)


def machine() -> dict[str, Any]:
    """Returns the facts that numbers need beside them. Asks GPUs only through nvidia-smi."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "gpus": gpus(),
    }


def gpus() -> list[str]:
    """Returns name, memory and driver of each GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    asked = "--query-gpu=name,memory.total,driver_version"
    words = [command, asked, "--format=csv,noheader"]
    listed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def write(out: Path, step: str, found: dict[str, Any], text: str) -> None:
    """Leave `STEP.json` and `STEP.txt` in the folder, and print the text."""
    out.mkdir(parents=True, exist_ok=True)
    whole = {"step": step, "machine": machine(), "found": found}
    (out / f"{step}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (out / f"{step}.txt").write_text(f"{heading(whole)}\n\n{text}\n", encoding="utf-8")
    sys.stdout.write(f"{text}\n")


def heading(whole: dict[str, Any]) -> str:
    """Formats the machine in one line."""
    facts = whole["machine"]
    where = "; ".join(facts["gpus"]) or "no GPU"
    return (
        f"{whole['step']}: {facts['date']}, {where}, {facts['processors']} processors, "
        f"{facts['platform']}, Python {facts['python']}, torch {facts['packages']['torch']}"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
