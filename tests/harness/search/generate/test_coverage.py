"""What was ever struck: from evidence, added up over sessions, told as a table."""

from __future__ import annotations

from pathlib import Path

from harness.faults.actions import Foreign, Naming
from harness.search.generate.coverage import (
    StrikeCell,
    cells_of,
    describe_coverage,
    note,
    read_coverage,
)
from tests.harness.judge.cases import Case, RunCase, correct, killed_run, resumed_run

FLUSH = StrikeCell(phase="flush", fault="kill", layout="fsdp", mode="disabled")


def test_a_strike_that_fired_is_a_cell() -> None:
    assert cells_of(correct().evidence()) == (FLUSH,)


def test_a_strike_that_did_not_fire_is_none() -> None:
    run = RunCase()
    run.start()
    run.kill(fires=False)
    assert cells_of(Case(runs=[run]).evidence()) == ()


def test_what_an_operator_did_is_a_cell_between_runs() -> None:
    second = resumed_run()
    operator = RunCase()
    operator.do("mkdir", "x")
    action = Foreign(foreign=Naming(path="x", kind="directory"))
    second.before.append((action, operator))
    cells = cells_of(Case(runs=[killed_run(), second]).evidence())
    between = StrikeCell(phase="between runs", fault="foreign", layout="fsdp", mode="disabled")
    assert cells == (FLUSH, between)


def test_sessions_add_up_and_lines_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "failures"
    note(folder, [FLUSH])
    note(folder, [FLUSH, StrikeCell(phase="step", fault="exit", layout="pp", mode="async")])
    note(folder, [])
    with (folder / "coverage.jsonl").open("a", encoding="utf-8") as file:
        file.write("half a li\n[[1, 2]]\n")
    found = read_coverage(folder)
    assert (found[FLUSH], len(found)) == (2, 2)


def test_without_a_file_nothing_was_struck(tmp_path: Path) -> None:
    assert not read_coverage(tmp_path)


def test_the_table_shows_counts_and_what_was_never_struck(tmp_path: Path) -> None:
    note(tmp_path, [FLUSH])
    lines = describe_coverage(read_coverage(tmp_path)).splitlines()
    (row,) = [line for line in lines if line.startswith("flush        kill")]
    assert row.split() == ["flush", "kill", ".", ".", ".", "1", *["."] * 14]
    assert "1 of " in lines[-2]
    assert "flush kill" not in lines[-1]
    assert "flush fail" in lines[-1]
