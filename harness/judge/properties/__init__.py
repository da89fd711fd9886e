"""The promises, one judge each, by name."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from harness.evidence.evidence import Evidence
from harness.judge.history import History
from harness.judge.properties import (
    agreement,
    bounded,
    clean,
    freeze_consistent,
    integrity,
    latest_durable,
    no_code_on_load,
    nothing_lost,
    resume_exact,
    retention,
    samples_exactly_once,
    whole_or_absent,
)
from harness.judge.verdict import Promise, Verdict

Judge = Callable[[Evidence, History], Verdict]

_MODULES: tuple[ModuleType, ...] = (
    latest_durable,
    whole_or_absent,
    nothing_lost,
    agreement,
    resume_exact,
    samples_exactly_once,
    freeze_consistent,
    retention,
    bounded,
    clean,
    integrity,
    no_code_on_load,
)

PROMISES: dict[str, Promise] = {one.PROMISE.name: one.PROMISE for one in _MODULES}
JUDGES: dict[str, Judge] = {one.PROMISE.name: one.judge for one in _MODULES}
