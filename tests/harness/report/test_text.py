"""The report that a person reads when a scenario is red."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.judge.judge import judge
from harness.report.text import describe
from harness.scenario.source import Source, read_source
from harness.words import EvidenceKind
from tests.harness.judge.cases import Case, RunCase, checkpoint_files, correct, killed_run
from tests.harness.judge.cuts import end_with_cut, evidence_of, materialize
from tests.harness.judge.lacking import known_jobs, without

YAML = """\
name: "sync: flush: a rank dies (fsdp2)"
world: {dp_shard: 2}
runs:
  - until_step: 6
    faults: [{kill: {rank: all}, at: {save: 2, phase: flush}}]
  - {until_step: 6}
"""


def _source(folder: Path, text: str = YAML) -> Source:
    path = folder / "kill.yaml"
    path.write_text(text, encoding="utf-8")
    return read_source(path, shown="scenarios/sync/kill.yaml")


def _torn() -> Case:
    case = correct()
    run = case.runs[1]
    run.do("unlink", "step_6/__0_0.distcp", phase="prune")
    run.event_logs = [[], []]
    run.fail("load")
    return case


def _report(case: Case, source: Source | None, replay: str = "") -> list[str]:
    evidence = case.evidence()
    return describe(evidence, judge(evidence), source=source, replay=replay).splitlines()


def test_the_first_line_has_the_outcome_and_the_name_and_the_last_the_command(
    tmp_path: Path,
) -> None:
    lines = _report(_torn(), _source(tmp_path), "pytest failures/x.yaml")
    assert lines[0] == "HARD_FAIL sync: flush: a rank dies (fsdp2)"
    assert lines[-2:] == ["replay:", "  pytest failures/x.yaml"]


def test_sentences_operations_exceptions_and_yaml_are_shown(tmp_path: Path) -> None:
    text = "\n".join(_report(_torn(), _source(tmp_path)))
    assert "VIOLATED whole_or_absent (HARD_FAIL): A directory named `step_N` is a" in text
    assert "after operation 64: step_6 carries a checkpoint's name" in text
    assert ">>> kill ranks 0, 1 after the last operation (run0.kill-0, 0.0" in text
    assert "!!!    64 rank 0 unlink   step_6/__0_0.distcp  [save 2/prune]" in text
    assert "       63 rank 0 rmdir    .trash-step_2  [save 2/prune]" in text
    assert "  run 1, rank 0, 1, during load: CheckpointError\n    step_2 is torn" in text
    assert "    | " in text
    assert "     5 |     faults: [{kill: {rank: all}, at: {save: 2, phase: flush}}]" in text


def test_a_strike_stands_before_the_operation_that_came_next() -> None:
    case = correct()
    case.runs[1].leaked = ("a process",)
    case.runs[0].do("mkdir", "late")
    case.runs[0].do("rmdir", "late")
    lines = _report(case, None)
    place = next(number for number, line in enumerate(lines) if ">>> kill" in line)
    assert lines[place - 1].strip().split()[:4] == ["31", "rank", "0", "fsync"]
    assert "before this" in lines[place]


def test_a_guard_that_failed_comes_first() -> None:
    case = correct()
    case.runs[0].kill(fires=False)
    lines = _report(case, None)
    assert lines[0].startswith("INVALID ")
    assert any(line.startswith("INVALID strikes_fired: not true: Every planned") for line in lines)


def test_a_pass_is_short() -> None:
    lines = _report(correct(), None)
    assert lines[0].startswith("PASS ")
    assert len(lines) < 14
    assert lines[-3:] == [
        "does not apply: freeze_consistent (the scenario has no freeze settings)",
        "does not apply: integrity (nothing was damaged between runs)",
        "does not apply: no_code_on_load (no hostile file was planted)",
    ]


def _report_without(kind: EvidenceKind) -> list[str]:
    evidence = without(correct().evidence(), kind)
    with known_jobs():
        return describe(evidence, judge(evidence), source=None, replay="").splitlines()


def test_a_property_without_its_evidence_is_listed_with_the_reason_and_so_is_one_in_part() -> None:
    lines = _report_without(EvidenceKind.ACKNOWLEDGEMENTS)
    assert "does not apply: nothing_lost (no evidence of: acknowledgements)" in lines
    assert "judged in part: bounded (no evidence of: acknowledgements)" in lines


def test_a_guard_that_could_not_be_checked_is_listed() -> None:
    lines = _report_without(EvidenceKind.ENDS)
    assert "not checked: ranks_accounted (no evidence of: ends)" in lines


def test_a_report_stays_short_and_keeps_its_end(tmp_path: Path) -> None:
    run = RunCase()
    for step in range(2, 40):
        run.fill(f"step_{step}", checkpoint_files(step), sync=False)
        run.point(step)
        run.kill(fires=False)
        run.fail("save " + "x" * 300)
    text = YAML + "".join(f"# comment {number}\n" for number in range(200))
    lines = _report(Case(runs=[run]), _source(tmp_path, text), "pytest x.yaml")
    assert len(lines) <= 120
    assert max(len(line) for line in lines) <= 150
    assert lines[-1] == "  pytest x.yaml"


def test_a_power_cut_is_told_with_what_it_took(tmp_path: Path) -> None:
    run = killed_run()
    left = materialize(run, tmp_path / "left")
    (left / "step_2" / "__0_0.distcp").write_bytes(b"")
    end_with_cut(run, left)
    evidence = evidence_of(Case(runs=[run]))

    text = describe(evidence, judge(evidence), source=None, replay="")

    assert "run 0: the power of ext4 was cut, journal lost: 1 names changed, 17 bytes lost" in text
    assert "run 0: it was told" in text
    assert "power is back: what the disk holds is listed here" in text


def test_the_cause_comes_before_the_errors_of_ranks_that_lost_their_peer(tmp_path: Path) -> None:
    case = _torn()
    case.runs[1].event_logs = [[], []]
    lost = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711"
    case.runs[1].fail("load", ranks=[0], kind="RuntimeError", message=lost)
    case.runs[1].fail("load", ranks=[1], kind="OSError", message="[Errno 5] Input/output error")
    text = "\n".join(_report(case, _source(tmp_path)))
    cause, consequence = text.index("rank 1, during load: OSError"), text.index("rank 0, during")
    assert cause < consequence


def test_a_long_message_is_shown_with_both_ends(tmp_path: Path) -> None:
    case = _torn()
    case.runs[1].event_logs = [[], []]
    message = "\n".join(["the save failed", *(f"frame {one}" for one in range(30)), "disk is full"])
    case.runs[1].fail("load", message=message)
    lines = _report(case, _source(tmp_path))
    first = lines.index("    the save failed")
    assert lines[first + 1 : first + 5] == [
        "    frame 0",
        "    frame 1",
        "    ... 28 more lines",
        "    disk is full",
    ]


def test_what_a_rank_printed_before_a_signal_ended_it_is_shown(tmp_path: Path) -> None:
    case = _torn()
    case.runs[1].exits = (-6, 1)
    folder = tmp_path / "run1"
    folder.mkdir()
    printed = "\n".join(["begun", *(["noise"] * 20), "terminate called: std::bad_alloc"])
    (folder / "rank0.log").write_text(printed, encoding="utf-8")
    evidence = replace(case.evidence(), directory=str(tmp_path))
    text = describe(evidence, judge(evidence), source=None, replay="")
    assert (
        "what they printed before they died:\n  run 1, rank 0, signal 6 (Aborted):\n    noise"
        in text
    )
    assert "    terminate called: std::bad_alloc" in text
    assert "begun" not in text


def test_a_signal_without_a_name_is_shown_by_its_number(tmp_path: Path) -> None:
    case = _torn()
    case.runs[1].exits = (-60, 1)
    evidence = replace(case.evidence(), directory=str(tmp_path))
    assert "run 1, rank 0, signal 60" in describe(evidence, judge(evidence), source=None, replay="")


def test_where_a_rank_hung_is_shown_with_its_last_operation(tmp_path: Path) -> None:
    case = correct()
    case.runs[1].hung = (1,)
    case.runs[1].do("mkdir", ".staging-step_8", rank=1)
    evidence = case.evidence()
    stack = 'Current thread 0x1 (most recent call first):\n  File "/code/m.py", line 7 in save\n'
    runs = (evidence.runs[0], replace(evidence.runs[1], stacks={1: stack}))
    evidence = replace(evidence, runs=runs)
    text = describe(evidence, judge(evidence), source=None, replay="")
    assert "  run 1, rank 1, its last operation was mkdir .staging-step_8\n" in text
    assert "    main thread: code/m.py:7 save" in text


def test_a_killed_rank_has_no_last_words(tmp_path: Path) -> None:
    (tmp_path / "run0").mkdir()
    (tmp_path / "run0" / "rank0.log").write_text("busy", encoding="utf-8")
    case = _torn()
    evidence = replace(case.evidence(), directory=str(tmp_path))
    assert "before they died" not in describe(evidence, judge(evidence), source=None, replay="")
