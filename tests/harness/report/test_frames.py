"""Tracebacks and stacks are reduced to the frames of the implementation under test."""

from __future__ import annotations

import faulthandler
import tempfile
import threading
import traceback
from pathlib import Path

import pytest

from harness.report import frames
from harness.report.frames import (
    is_consequence,
    is_of_implementation,
    short_stacks,
    short_traceback,
)

TRACE = """Traceback (most recent call last):
  File "/x/harness_of_others/loop.py", line 3, in run
    manager.save(4)
  File "/code/manager.py", line 55, in save
    self._write(step)
  File "/code/manager.py", line 90, in _write
    dcp.save(state)
  File "/venv/lib/python3.11/site-packages/torch/distributed/checkpoint/api.py", line 8, in save
    return plan(state)
           ^^^^^^^^^^^
OSError: no space
"""


def test_the_last_frames_of_the_implementation_are_shown_and_none_of_libraries() -> None:
    assert short_traceback(TRACE, "mine", most=2) == [
        '  File "/code/manager.py", line 55, in save',
        "    self._write(step)",
        '  File "/code/manager.py", line 90, in _write',
        "    dcp.save(state)",
    ]


def test_without_a_frame_of_the_implementation_the_last_one_stands_for_it() -> None:
    only = TRACE.splitlines(keepends=True)
    trace = "".join((only[0], *only[7:]))
    assert short_traceback(trace, "mine", most=2) == [
        '  File "/venv/lib/python3.11/site-packages/torch/distributed/checkpoint/api.py", line 8, '
        "in save",
        "    return plan(state)",
    ]


def test_a_real_traceback_is_read() -> None:
    try:
        Path("/nowhere/at/all").read_bytes()
    except OSError:
        trace = traceback.format_exc()
    (first, source) = short_traceback(trace, "mine", most=4)
    assert first.endswith("in test_a_real_traceback_is_read")
    assert source.strip() == 'Path("/nowhere/at/all").read_bytes()'


def test_a_real_dump_of_all_threads_begins_with_the_main_one() -> None:
    release = threading.Event()

    def wait_for_the_test() -> None:
        release.wait()

    thread = threading.Thread(target=wait_for_the_test)
    thread.start()
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read().decode()
    release.set()
    thread.join()
    main, *others = short_stacks(text, "mine", most=3)
    assert main.startswith("main thread: ")
    assert "test_a_real_dump_of_all_threads_begins_with_the_main_one" in main
    assert any("wait <- " in one and "wait_for_the_test" in one for one in others), others


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/code/manager.py", True),
        ("/venv/lib/python3.11/site-packages/torch/x.py", False),
        ("/usr/lib/python3.11/threading.py", False),
        ("/usr/local/lib/python3.12/threading.py", False),
        ("<frozen importlib._bootstrap>", False),
        ("/venv/lib/python3.11/site-packages/mine/saving/manager.py", True),
        ("/venv/lib/python3.11/site-packages/mine.py", True),
        ("/venv/lib/python3.11/site-packages/mine_too/x.py", False),
    ],
)
def test_a_library_is_not_of_the_implementation_unless_it_is_one(path: str, expected: bool) -> None:
    assert is_of_implementation(path, "mine.saving.manager") is expected


def test_only_the_harness_itself_is_the_harness() -> None:
    harness = Path(frames.__file__).parents[1]
    assert not is_of_implementation(f"{harness}/run/supervise.py", "mine")
    assert is_of_implementation(f"{harness}_of_others/loop.py", "mine")


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("RuntimeError", "[gloo/transport/tcp/pair.cc:1] Connection closed by peer", True),
        ("DistBackendError", "NCCL communicator was aborted", True),
        ("ConnectionResetError", "reset", True),
        ("OSError", "[Errno 28] No space left on device", False),
        ("RuntimeError", "shape mismatch for layers.0", False),
        ("CheckpointError", "rank 1 could not write: connection to the store was lost", False),
    ],
)
def test_errors_that_only_say_that_another_rank_is_gone_are_consequences(
    kind: str, message: str, expected: bool
) -> None:
    assert is_consequence(kind, message) is expected
