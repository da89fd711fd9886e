"""Every public name says what it means, whether all ranks must call it, and from which thread."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kempnerforge import checkpoint
from kempnerforge.resilience.elastic import resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler

COLLECTIVE = re.compile(r"\bcollective\b", re.IGNORECASE)
THREAD = re.compile(r"\bthread\b")
EVERYTHING = {
    **{name: getattr(checkpoint, name) for name in checkpoint.__all__},
    "resolve_resume_path": resolve_resume_path,
    "ShutdownHandler": ShutdownHandler,
}
ACTING = {
    name: value
    for name, value in EVERYTHING.items()
    if inspect.isfunction(value)
    or name in ("AsyncCheckpointer", "CheckpointManager", "ShutdownHandler")
}


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class itself defines."""
    for name, value in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield f"{cls.__name__}.{name}", value


CALLS = {
    **{name: value for name, value in ACTING.items() if inspect.isfunction(value)},
    **{
        name: value
        for cls in ACTING.values()
        if inspect.isclass(cls)
        for name, value in members(cls)
    },
}


def test_there_is_something_to_look_at() -> None:
    assert {"CheckpointManager.save", "AsyncCheckpointer.is_pending", "set_rng_state"} <= set(CALLS)


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_public_name_has_a_docstring_of_its_own(name: str) -> None:
    value = EVERYTHING[name]
    own = value.__doc__ if not inspect.isclass(value) else vars(value).get("__doc__")
    assert own
    assert not own.startswith(f"{name}(")  # what dataclass makes up


@pytest.mark.parametrize("name", CALLS)
def test_each_call_says_whether_it_is_collective(name: str) -> None:
    assert COLLECTIVE.search(inspect.getdoc(CALLS[name]) or "")


@pytest.mark.parametrize("name", ACTING)
def test_each_class_and_function_says_which_threads_may_call_it(name: str) -> None:
    assert THREAD.search(inspect.getdoc(ACTING[name]) or "")


@pytest.mark.parametrize("name", CALLS)
def test_each_parameter_of_a_call_is_explained(name: str) -> None:
    call = CALLS[name]
    if isinstance(call, property):
        return
    text = inspect.getdoc(call) or ""
    names = [one for one in inspect.signature(call).parameters if one != "self"]
    unexplained = [one for one in names if not re.search(rf"^\s+{one}: |``{one}``", text, re.M)]
    assert unexplained == []
