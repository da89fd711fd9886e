"""The cost of a save and a start of a tiny model, by how many checkpoints are kept.

    python -m benchmarks.kept [--kept 10 100 300 1000 2000] [--repeat 40] [--starts 8]

One process on the CPU. For each number there is a directory with one real checkpoint, which
``latest`` names, and as many others with only a manifest, because no more of them is read. The
directories take turns, a cell is a median, and the tables are ratios to the smallest number,
because the machine may be shared. ``retention`` keeps exactly as many as there are, so each of its
saves also decides, and deletes one. The printed tables are those of docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.config.schema import CheckpointConfig

_FIRST_STEP = 1_000_000
Times = dict[tuple[str, int], list[float]]
"""Seconds by action and number of checkpoints."""


def _manager(directory: Path, keep_last_n: int) -> CheckpointManager:
    model = torch.nn.Linear(8, 8)
    config = CheckpointConfig(dir=str(directory), keep_last_n=keep_last_n)
    return CheckpointManager(config, model, torch.optim.AdamW(model.parameters()))


def _fill(directory: Path, kept: int) -> None:
    """Creates a checkpoint that ``latest`` names, and others before it."""
    _manager(directory, 0).save(_FIRST_STEP)
    last = directory / layout.format_step(_FIRST_STEP) / layout.MANIFEST
    sealed = manifest.decode(last.read_bytes(), where=str(last))
    parent = None
    for number in range(1, kept):
        save_id = f"{number:016x}"
        folder = directory / layout.format_step(number)
        folder.mkdir()
        other = replace(sealed, step=number, sequence=number, save_id=save_id, parent=parent)
        (folder / layout.MANIFEST).write_bytes(manifest.encode(other))
        parent = save_id
    last.write_bytes(manifest.encode(replace(sealed, sequence=kept, parent=parent)))


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _measure(base: Path, kept: Sequence[int], *, repeat: int, starts: int) -> Times:
    times: Times = {}
    plain = {number: base / f"plain-{number}" for number in kept}
    retained = {number: base / f"retained-{number}" for number in kept}
    for number in kept:
        _fill(plain[number], number)
        _fill(retained[number], number)
    managers = {number: _manager(plain[number], 0) for number in kept}
    retaining = {number: _manager(retained[number], number) for number in kept}
    for turn in range(repeat + 1):
        for number in kept:
            for what, manager in (("save", managers[number]), ("retention", retaining[number])):
                step = _FIRST_STEP + turn + 1
                took = _timed(partial(manager.save, step))
                if turn:
                    times.setdefault((what, number), []).append(took)
    del managers, retaining
    for turn in range(starts):
        for number in kept:
            _start(times, number, plain[number], _FIRST_STEP + repeat + 2 * turn + 2)
    return times


def _start(times: Times, number: int, directory: Path, step: int) -> None:
    """Times a run that resumes and saves, and one that saves without having loaded."""
    resumed = _manager(directory, 0)
    times.setdefault(("load", number), []).append(_timed(resumed.load))
    after_load = times.setdefault(("first save after a load", number), [])
    after_load.append(_timed(partial(resumed.save, step)))
    fresh = _manager(directory, 0)
    without_load = times.setdefault(("first save without a load", number), [])
    without_load.append(_timed(partial(fresh.save, step + 1)))


def _print_table(times: Times, kept: Sequence[int]) -> None:
    print(f"| kept | {' | '.join(map(str, kept))} |")
    print(f"|---|{'---|' * len(kept)}")
    for what in dict.fromkeys(what for what, _ in times):
        medians = {number: statistics.median(times[what, number]) for number in kept}
        unit = medians[kept[0]]
        cells = [f"{1000 * unit:.1f} ms"] + [f"{medians[n] / unit:.2f}" for n in kept[1:]]
        print(f"| {what} | {' | '.join(cells)} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=int, nargs="+", default=[10, 100, 300, 1000, 2000])
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--starts", type=int, default=8)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        times = _measure(Path(name), parsed.kept, repeat=parsed.repeat, starts=parsed.starts)
    _print_table(times, parsed.kept)


if __name__ == "__main__":
    main()
