"""An implementation is started once before any scenario; the errors of that say where and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import __main__ as command
from harness.plan.model import Implementation
from harness.promises import ALL, DOCUMENTED, parse_promises
from harness.run.inspecting import ImplementationError, inspect_implementation
from tests.harness.proving import ROOT

GOOD = """
class Manager:
    def __init__(self, config, model, optimizer, process_group=None, pp_rank=None):
        self.config = config
"""


def _implementation(tmp_path: Path, text: str, name: str = "mine:Manager") -> Implementation:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    return Implementation(name=name, path=str(tmp_path))


def test_ours_is_not_started_and_promises_everything(tmp_path: Path) -> None:
    assert inspect_implementation(Implementation(), None).promises == ALL
    less = parse_promises("all,-power_cuts")
    assert inspect_implementation(Implementation(), less).promises == less


@pytest.mark.parametrize(
    ("more", "promises"),
    [
        ("", DOCUMENTED),
        ("    promises = 'documented,errors'\n", parse_promises("documented,errors")),
    ],
)
def test_another_one_promises_what_its_class_says_or_the_documented_api(
    tmp_path: Path, more: str, promises: tuple[str, ...]
) -> None:
    found = inspect_implementation(_implementation(tmp_path, GOOD + more), None)
    assert found.promises == promises
    asked = parse_promises("all")
    assert inspect_implementation(_implementation(tmp_path, GOOD + more), asked).promises == ALL


def test_our_package_in_another_folder_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "kempnerforge").symlink_to(ROOT / "kempnerforge")
    assert inspect_implementation(Implementation(path=str(tmp_path)), None).promises == DOCUMENTED


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("import nothing_here\n", "mine:Manager", "No module named 'nothing_here'"),
        ("class Other: ...\n", "mine:Manager", "has no attribute 'Manager'"),
        (
            "class Manager:\n    def __init__(self): ...\n",
            "mine:Manager",
            "unexpected keyword argument",
        ),
        (GOOD + "    promises = 'evrything'\n", "mine:Manager", "'evrything' is no promise"),
        ("import os\nos._exit(7)\n", "mine:Manager", "with status 7"),
        ("class CheckpointConfig:\n    pass\n" + GOOD, "mine:Manager", "CheckpointConfig"),
    ],
)
def test_one_that_cannot_be_started_is_one_error_that_says_where(
    tmp_path: Path, text: str, name: str, said: str
) -> None:
    with pytest.raises(ImplementationError, match=said) as error:
        inspect_implementation(_implementation(tmp_path, text, name), None)
    assert "mine" in str(error.value)


def test_the_frames_of_an_error_are_those_of_the_implementation(tmp_path: Path) -> None:
    text = GOOD + "        raise RuntimeError('no storage')\n"
    with pytest.raises(ImplementationError, match="RuntimeError: no storage") as error:
        inspect_implementation(_implementation(tmp_path, text), None)
    lines = str(error.value).splitlines()
    assert lines[1:] == [f"  {tmp_path}/mine.py:5, in __init__: raise RuntimeError('no storage')"]


def test_a_command_ends_with_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = str(ROOT / "scenarios/baseline/stopped-between-saves.yaml")
    words = ["replay", scenario, "--implementation", "nowhere:Manager"]
    assert command.main(words) == command.UNUSABLE
    assert capsys.readouterr().err.startswith("ERROR: nowhere:Manager cannot be built: ")
