"""The versions of torch that are allowed, and those that were tried."""

import re
import subprocess
import tomllib
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
OLDEST, NEWEST_TRIED = (2, 11), (2, 14)


def newer_than_tried(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) > NEWEST_TRIED


@pytest.mark.filterwarnings("default:torch .* is newer:UserWarning")
def test_a_torch_that_is_newer_than_what_was_tried_is_warned_of() -> None:
    if newer_than_tried(torch.__version__):
        warnings.warn(
            f"torch {torch.__version__} is newer than what was tried; docs/support.md, section "
            "'A newer torch', says how to try it",
            stacklevel=1,
        )


@pytest.mark.parametrize(
    ("version", "newer"),
    [("2.13.0+cpu", False), ("2.14.1", False), ("2.15.0", True), ("3.0.0a1", True)],
)
def test_newer_is_what_has_a_later_minor_version(version: str, newer: bool) -> None:
    assert newer_than_tried(version) is newer


def test_torch_has_a_lower_bound_and_no_upper_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for one in project["dependencies"] if one.startswith("torch")]
    assert wanted == f"torch>={OLDEST[0]}.{OLDEST[1]}"


@pytest.mark.parametrize("page", ["README.md", "docs/support.md"])
def test_the_pages_say_what_was_tried(page: str) -> None:
    found = re.findall(r"torch (\d+\.\d+) to (\d+\.\d+)", (ROOT / page).read_text())
    assert found == [("2.11", "2.14")]


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("2.10.1", False),
        ("2.9.0", False),
        ("1.13.1", False),
        ("2.11.0+cpu", True),
        ("2.14.1", True),
        ("2.15.0+cu130", True),
        ("3.0.0", True),
    ],
)
def test_the_setup_takes_an_installed_torch_from_the_lower_bound_on(
    version: str, taken: bool
) -> None:
    setup = (ROOT / ".ci" / "setup").read_text()
    (function,) = re.findall(r"^fits\(\) \{.*?^\}", setup, re.S | re.M)
    script = f"wanted_torch=\n{function}\nfits {version}"
    assert (subprocess.run(["bash", "-c", script], check=False).returncode == 0) is taken
