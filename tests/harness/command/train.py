"""A training script without torch: a chain of numbers, saved in one of several ways.

Each test runs it as it is; nothing here knows of the harness.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def save_in_place(root: Path, state: dict[str, int]) -> None:
    (root / "state.json").write_text(json.dumps(state))


def save_by_rename(root: Path, state: dict[str, int], *, syncs: bool) -> None:
    with (root / "state.tmp").open("w") as file:
        file.write(json.dumps(state))
        file.flush()
        if syncs:
            os.fsync(file.fileno())
    (root / "state.tmp").rename(root / "state.json")
    if syncs:
        directory = os.open(root, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def save_to_another(root: Path, state: dict[str, int]) -> None:
    """A file a step; the newest wins, and the one before is removed too early."""
    for old in root.glob("step-*.json"):
        old.unlink()
    save_by_rename(root, state, syncs=True)
    (root / "state.json").rename(root / f"step-{state['step']}.json")


def save_whatever_happens(root: Path, state: dict[str, int], *, waits: bool) -> None:
    """By rename, and without looking at what the storage answers."""
    descriptor = os.open(root / "state.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, json.dumps(state).encode())
    except OSError:
        while waits:
            time.sleep(0.1)
    os.fsync(descriptor)
    os.close(descriptor)
    (root / "state.tmp").rename(root / "state.json")


def newest(root: Path) -> Path | None:
    numbered = sorted(root.glob("step-*.json"), key=lambda one: int(one.stem[5:]))
    return next(iter([*reversed(numbered), *root.glob("state.json")]), None)


def main() -> None:
    root, how = Path(sys.argv[1]), sys.argv[2]
    root.mkdir(exist_ok=True)
    found = newest(root)
    state = json.loads(found.read_text()) if found else {"step": 0, "value": 1}
    if how == "forgets" and found:
        state["value"] += 1
    while state["step"] < 6:
        state = {"step": state["step"] + 1, "value": (31 * state["value"] + 7) % 1000003}
        if how == "drifts":
            state["value"] = (state["value"] + os.getpid()) % 1000003
        print(f"step {state['step']} value {state['value']}", flush=True)
        if state["step"] % 2 == 0:
            match how:
                case "renames" | "unsynced":
                    save_by_rename(root, state, syncs=how == "renames")
                case "ignores" | "waits":
                    save_whatever_happens(root, state, waits=how == "waits")
                case "removes":
                    save_to_another(root, state)
                case _:
                    save_in_place(root, state)


if __name__ == "__main__":
    main()
