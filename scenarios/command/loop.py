"""A training loop without torch, which resumes by itself: `loop.py DIRECTORY`.

Each checkpoint is written under another name, synced and renamed; the newest one is resumed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def save(root: Path, state: dict[str, int]) -> None:
    """Write a checkpoint that is whole or absent, also after a power cut."""
    part, path = root / "checkpoint.part", root / f"checkpoint-{state['step']}.json"
    with part.open("w") as file:
        file.write(json.dumps(state))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    directory = os.open(root, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def load(root: Path) -> dict[str, int]:
    """Return the newest checkpoint, or a fresh state."""
    found = sorted(root.glob("checkpoint-*.json"), key=lambda one: int(one.stem.split("-")[1]))
    if not found:
        return {"step": 0, "weight": 1}
    state: dict[str, int] = json.loads(found[-1].read_text())
    return state


def main() -> None:
    """Train eight steps, and save every second one."""
    root = Path(sys.argv[1])
    root.mkdir(exist_ok=True)
    state = load(root)
    while state["step"] < 8:
        state = {"step": state["step"] + 1, "weight": (31 * state["weight"] + 7) % 1000003}
        sys.stdout.write(f"step {state['step']} loss {state['weight']}\n")
        if state["step"] % 2 == 0:
            save(root, state)


if __name__ == "__main__":
    main()
