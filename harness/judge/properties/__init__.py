"""The promises, one module each, found by their names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from harness.evidence.evidence import Evidence
from harness.judge.history import History
from harness.judge.verdict import Promise, Verdict
from harness.words import PROPERTIES

Judge = Callable[[Evidence, History], Verdict]

_MODULES = tuple(import_module(f"{__name__}.{name}") for name in PROPERTIES)

PROMISES: dict[str, Promise] = {one.PROMISE.name: one.PROMISE for one in _MODULES}
JUDGES: dict[str, Judge] = {one.PROMISE.name: one.judge for one in _MODULES}
