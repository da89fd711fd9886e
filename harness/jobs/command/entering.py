"""Makes a forked process the Python program of a rank, as if an interpreter had been started."""

from __future__ import annotations

import atexit
import builtins
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = "harness"


def enter_program(rank: Mapping[str, Any], search_path: Sequence[str]) -> int:
    """Runs the program to its end; returns the exit status.

    `search_path` is what an interpreter that starts has in `sys.path`, before the entry for the
    program itself.
    """
    os.chdir(rank["cwd"])
    os.environ.clear()
    os.environ.update(rank["environment"])
    sys.path[:] = search_path
    if rank["words"]:
        os.execvp(rank["words"][0], rank["words"])
    _forget_the_harness()
    _draw_anew()
    status = 0
    try:
        _run(rank)
    except SystemExit as error:
        status = _status_of(error)
    except BaseException as error:  # noqa: BLE001 - as the interpreter: report it, then end
        sys.excepthook(type(error), error, error.__traceback__)
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    _end()
    return status


def _run(rank: Mapping[str, Any]) -> None:
    script, module = rank["script"], rank["module"]
    sys.argv = [script or module, *rank["arguments"]]
    main = sys.modules["__main__"] = ModuleType("__main__")
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, str(Path(script).resolve().parent) if script else str(Path.cwd()))
    if script is None:
        runpy._run_module_as_main(module)  # type: ignore[attr-defined]
    elif Path(script).is_dir():
        sys.path[0] = script
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
    else:
        code = compile(Path(script).read_bytes(), script, "exec")
        main.__dict__.update(__file__=script, __builtins__=builtins, __spec__=None)
        exec(code, main.__dict__)  # noqa: S102 - what an interpreter does with a script


def _forget_the_harness() -> None:
    """The program may have modules of these names."""
    for name in [one for one in sys.modules if one.partition(".")[0] == _OURS]:
        del sys.modules[name]


def _draw_anew() -> None:
    """Seeds the generators that an interpreter seeds from the system when it starts."""
    if "random" in sys.modules:
        sys.modules["random"].seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _status_of(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _end() -> None:
    """Does what an interpreter does at its end: joins threads, then runs the exit handlers."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
