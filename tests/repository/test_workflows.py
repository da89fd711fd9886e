"""The workflows call the commands of the README, pin what they use, and keep what came out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
KEEPS = {"results/", "failures/", "*.txt"}
"""JUnit, the files that replay what failed, and the report."""


class _Loader(yaml.SafeLoader):
    """YAML as GitHub reads it, where `on` is a word and no truth value."""


_LOADED = [
    (first, [one for one in resolvers if one[0] != "tag:yaml.org,2002:bool"])
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
]
_Loader.yaml_implicit_resolvers = dict(_LOADED)


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((FOLDER / name).read_text(), Loader=_Loader)
    return found


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in workflow(name)["jobs"].values():
        yield from job["steps"]


NAMES = ("cpu.yml", "gpu.yml")


def test_these_are_the_workflows() -> None:
    assert tuple(sorted(path.name for path in FOLDER.iterdir())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_command_is_one_of_the_readme(name: str) -> None:
    told = re.findall(r"bash \.ci/\w+|python -m harness", (ROOT / "README.md").read_text())
    called = [step["run"] for step in steps(name) if "run" in step]
    assert called
    for command in called:
        assert any(one in command for one in told), command
        for script in re.findall(r"\.ci/\w+", command):
            assert (ROOT / script).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_each_action_has_an_exact_version(name: str) -> None:
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", one)] == []


@pytest.mark.parametrize("name", NAMES)
def test_report_junit_and_failures_are_kept_whatever_happens(name: str) -> None:
    for job in workflow(name)["jobs"].values():
        last = job["steps"][-1]
        assert last["uses"].startswith("actions/upload-artifact@")
        assert last["if"] == "always()"
        assert set(last["with"]["path"].split()) >= KEEPS
        written = " ".join(step.get("run", "") for step in job["steps"])
        assert "--junit-xml=results/" in written
        assert re.search(r"\| tee \w+\.txt", written)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_may_only_read_and_ends_some_day(name: str) -> None:
    found = workflow(name)
    assert found["permissions"] == {"contents": "read"}
    assert found["defaults"]["run"]["shell"] == "bash"
    assert all(0 < int(job["timeout-minutes"]) <= 120 for job in found["jobs"].values())


def test_a_runner_of_ones_own_runs_what_a_person_has_labelled_and_nothing_pushed_later() -> None:
    found = workflow("gpu.yml")
    assert set(found["on"]) == {"schedule", "workflow_dispatch", "pull_request"}
    assert found["on"]["pull_request"] == {"types": ["labeled"]}
    (job,) = found["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "linux", "x64", "gpu"]
    assert job["if"] == "github.event_name != 'pull_request' || github.event.label.name == 'gpu'"
