"""Records come back from their lines as they were, and anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from harness.evidence.record import (
    AnyRecord,
    Drained,
    Entered,
    Evaluated,
    Finished,
    Raised,
    Record,
    Refused,
    SaveBegan,
    SaveReturned,
    Started,
    Struck,
    read_record,
)
from harness.jobs.training.event_log import EventLog
from tests.harness.judge.cases import resumed, stepped

RECORDS = (
    Started(rank=1, pid=2, versions={"python": "3"}),
    Entered(period="evaluation", step=4),
    Evaluated(step=4, loss=None),
    resumed(1, None),
    Refused(changed=("model.weight",)),
    stepped(0, 3),
    Struck(strike="run0.kill-0"),
    SaveBegan(step=2, ordinal=1, index=7),
    SaveReturned(step=2, ordinal=1),
    Drained(call="wait"),
    Raised(during="load", type="ValueError", message="é\n\x00", trace=""),
    Finished(step=6, reason="until_step", threads=("flusher",)),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record.kind))
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    line = record.to_line()
    assert line.isascii()
    assert "\n" not in line
    assert read_record(line) == record


def test_every_kind_is_one_of_these() -> None:
    union, _ = get_args(AnyRecord)
    assert {type(one) for one in RECORDS} == set(get_args(union))


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[1]", '{"kind": "told"}', '{"kind": "drained"}', '{"kind": "drained", "call'],
)
def test_what_is_no_record_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"validation error"):
        read_record(line)


def test_an_error_that_names_a_file_whose_name_is_no_text_is_recorded(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "rank0.jsonl")
    log.record_raised(OSError("no file \udcff"))
    record = read_record((tmp_path / "rank0.jsonl").read_text(encoding="ascii"))
    assert isinstance(record, Raised)
    assert record.message == "no file \\udcff"
