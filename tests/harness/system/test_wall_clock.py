"""The wall clock of a process is set, for all of its code and its children, and no other clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from harness.system.wall_clock import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

PROGRAM = """
import ctypes, datetime, os, time
from harness.system.wall_clock import own_wall_clock

early, began = time.time, time.time()
libc = ctypes.CDLL(None)
moment = (ctypes.c_int64 * 2)()
clock = own_wall_clock()
assert abs(time.time() - began) < 60
for ahead in (3600, -86400, 0):
    steady = time.monotonic()
    clock.set_ahead(ahead)
    libc.gettimeofday(moment, None)
    found = (early(), datetime.datetime.now().timestamp(), libc.time(None), moment[0])
    assert all(abs(one - began - ahead) < 60 for one in found), found
    assert 0 <= time.monotonic() - steady < 60
clock.set_ahead(3600)
child = os.fork()
if not child:
    os._exit(0 if abs(time.time() - began - 3600) < 60 else 1)
assert os.waitpid(child, 0)[1] == 0
with open(os.sys.argv[1], "w") as file:
    pass
assert time.time() - os.stat(os.sys.argv[1]).st_mtime > 3000
"""


def test_all_code_of_a_process_sees_its_clock_and_files_do_not(tmp_path: object) -> None:
    file = f"{tmp_path}/made"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert abs(time.time() - os.stat(file).st_mtime) < 60
