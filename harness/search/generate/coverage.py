"""Counts which strikes have ever fired: phase, fault, layout of the ranks, mode of the saves.

Only fired strikes count, as the evidence shows, not planned ones. `failures/coverage.jsonl` has a
JSON line for each scenario, so that sessions add up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from harness.evidence.evidence import Evidence
from harness.faults.actions import ACTIONS, DISPLACING
from harness.faults.registry import KINDS
from harness.faults.strike import Strike
from harness.words import PERIODS, SAVE_PHASES
from harness.world import World

FILE = "coverage.jsonl"
STEP, OUTSIDE, BETWEEN = "step", "outside", "between runs"
LAYOUTS = ("1 rank", "fsdp", "pp", "pp x fsdp", "ddp or hsdp", "with tp")
MODES = ("disabled", "async", "async_with_pinned_mem")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class StrikeCell:
    """One kind of strike. An operator's action between runs has the phase `between runs`."""

    phase: str
    fault: str
    layout: str
    mode: str


def cells_of(evidence: Evidence) -> tuple[StrikeCell, ...]:
    """Returns the cells that a scenario has struck, each once."""
    checkpoint = evidence.plan.checkpoint
    assert checkpoint is not None, "only the reference run never saves"
    mode = checkpoint.async_mode
    found = [
        StrikeCell(phase=phase, fault=fault, layout=layout_of(world), mode=mode)
        for phase, fault, world in (*_strikes(evidence), *_actions(evidence))
    ]
    return tuple(dict.fromkeys(found))


def layout_of(world: World) -> str:
    """Returns the kind of the layout, without its size."""
    if world.tp > 1:
        return "with tp"
    if world.dp_replicate > 1:
        return "ddp or hsdp"
    return LAYOUTS[2 * (world.pp > 1) + (world.dp_shard > 1)]


def _strikes(evidence: Evidence) -> Iterator[tuple[str, str, World]]:
    for number, run in enumerate(evidence.runs):
        fired = {one.strike for one in run.fired}
        for strike in evidence.plan.runs[number].strikes:
            if strike.id in fired:
                yield _phase(strike), strike.fault.word, evidence.plan.workload_of(number).world


def _phase(strike: Strike) -> str:
    if strike.point.step is not None:
        return STEP
    if strike.point.during is not None:
        return str(strike.point.during)
    return strike.point.phase or OUTSIDE


def _actions(evidence: Evidence) -> Iterator[tuple[str, str, World]]:
    for number, at_rest in evidence.at_rest.items():
        for done in at_rest.done:
            if done.problem is None:
                yield BETWEEN, done.action, evidence.plan.workload_of(number).world


def note(folder: Path, cells: Iterable[StrikeCell]) -> None:
    """Add a scenario. One short write at the end of the file, so that writers need no lock."""
    rows = [astuple(cell) for cell in cells]
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(rows) + "\n")


def read_coverage(folder: Path) -> Counter[StrikeCell]:
    """Counts how many scenarios have struck each cell; skips lines of other versions."""
    found: Counter[StrikeCell] = Counter()
    file = folder / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for line in lines:
        try:
            cells = [
                StrikeCell(phase=phase, fault=fault, layout=layout, mode=mode)
                for phase, fault, layout, mode in json.loads(line)
            ]
        except (ValueError, TypeError):
            continue
        found.update(cells)
    return found


def possible_rows() -> tuple[tuple[str, str], ...]:
    """Returns every phase with every fault that can fall into it."""
    rows = [(STEP, kind.word) for kind in KINDS if "step" in kind.drawn_at]
    anywhere = [kind.word for kind in KINDS if "period" in kind.drawn_at]
    rows += [(period, fault) for period in PERIODS for fault in anywhere]
    in_saves = [kind.word for kind in KINDS if "operation" in kind.drawn_at]
    rows += [(phase, fault) for phase in SAVE_PHASES for fault in in_saves]
    rows += [("load", "kill"), (OUTSIDE, "kill")]
    between = [action for action in ACTIONS if action not in DISPLACING]
    return (*rows, *((BETWEEN, action) for action in between))


def describe_coverage(found: Counter[StrikeCell]) -> str:
    """Formats the table, a row for each phase and fault; a dot is a cell never struck."""
    columns = [(layout, mode) for layout in LAYOUTS for mode in MODES]
    rows = sorted({(cell.phase, cell.fault) for cell in found} | set(possible_rows()), key=_order)
    lines = [_heading(), ""]
    struck = 0
    for phase, fault in rows:
        counts = [
            found[StrikeCell(phase=phase, fault=fault, layout=layout, mode=mode)]
            for layout, mode in columns
        ]
        struck += sum(count > 0 for count in counts)
        entries = "".join(f"{count or '.':>5}" for count in counts)
        lines.append(f"{phase:<13}{fault:<12}{entries}")
    empty = [f"{phase} {fault}" for phase, fault in rows if not _any(found, phase, fault)]
    lines += ["", f"{struck} of {len(rows) * len(columns)} cells struck"]
    lines += [f"never struck in any layout and mode: {', '.join(empty)}"] if empty else []
    return "\n".join(lines)


def _heading() -> str:
    layouts = "".join(f"{layout:>15}" for layout in LAYOUTS)
    modes = "".join(f"{word:>5}" for word in ("sync", "asyn", "pin") * len(LAYOUTS))
    return f"{'':<25}{layouts}\n{'':<25}{modes}"


def _order(row: tuple[str, str]) -> tuple[int, str]:
    phases = (OUTSIDE, "load", STEP, *PERIODS, *SAVE_PHASES, BETWEEN)
    return phases.index(row[0]) if row[0] in phases else len(phases), row[1]


def _any(found: Counter[StrikeCell], phase: str, fault: str) -> bool:
    return any((cell.phase, cell.fault) == (phase, fault) for cell in found)
