"""A training script with the three calls of the probe, right or wrong in one of several ways."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from harness.probe import resumed, saved, step


def write_whole(path: Path, text: str) -> None:
    """By a temporary file, and by rename."""
    part = path.with_suffix(".part")
    part.write_text(text)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)


def save(root: Path, state: dict[str, int]) -> None:
    write_whole(root / f"step-{state['step']}.json", json.dumps(state))
    write_whole(root / "latest", f"step-{state['step']}.json\n")


def load(root: Path, how: str) -> dict[str, int] | None:
    if how == "oldest":
        there = sorted(root.glob("step-*.json"))
        return json.loads(there[0].read_text()) if there else None
    if not (root / "latest").exists():
        return None
    return json.loads((root / (root / "latest").read_text().strip()).read_text())  # type: ignore[no-any-return]


def main() -> None:
    root, how = Path(sys.argv[1]), sys.argv[2]
    root.mkdir(exist_ok=True)
    found = load(root, how)
    state = found or {"step": 0, "value": 1}
    if found and how == "other":
        state["value"] += 1
    resumed(state["step"] if found else None, state=state)
    began = state["step"]
    while state["step"] < 8:
        now = state["step"] + 1
        state = {"step": now, "value": (31 * state["value"] + 7) % 1000003}
        sample = now - began if how == "again" else now
        step(now, loss=state["value"], samples=[sample], state=state)
        print(f"step {now} value {state['value']}", flush=True)
        if now % 2 == 0:
            if how == "early":
                saved(now)
            save(root, state)
            saved(now)


if __name__ == "__main__":
    main()
