"""`--device` decides for scenarios that leave their device open, and the failure file says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import pytest_plugin
from harness.judge.outcome import Outcome
from harness.plan.model import Plan
from harness.prove import Proof
from harness.run import support
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from tests.harness.plugin.test_plugin import fake_prove, run, write

pytest_plugins = ["pytester"]

OPEN = 'name: "a: b"\nworld: {dp_shard: 2}\nruns: [{until_step: 2}]\n'


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run, on a machine that has one GPU and says that it lacks nothing."""
    plans = fake_prove(monkeypatch, Proof(outcome=Outcome.PASS))
    monkeypatch.setattr(pytest_plugin, "count_gpus", lambda: 1)
    monkeypatch.setattr(support, "missing_for", lambda _: None)
    return plans


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        ((), ["cpu", "cpu", "cuda"]),
        (("--device", "cuda"), ["cpu", "cuda", "cuda"]),
        (("--device", "cpu"), ["cpu", "cpu", "cuda"]),
    ],
)
def test_a_device_is_decided_for_scenarios_that_leave_theirs_open(
    pytester: pytest.Pytester, proved: list[Plan], words: tuple[str, ...], devices: list[str]
) -> None:
    write(pytester.path, "scenarios/a.yaml", text=OPEN + "device: cpu\n")
    write(pytester.path, "scenarios/b.yaml", text=OPEN)
    write(pytester.path, "scenarios/c.yaml", text=OPEN + "device: cuda\n")
    run(pytester, "scenarios", *words).assert_outcomes(passed=3)
    assert [plan.workload.device for plan in proved] == devices


def test_scenarios_skip_with_the_reason_where_the_device_is_not_there(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fake_prove(monkeypatch, Proof(outcome=Outcome.PASS)) == []
    write(pytester.path, "scenarios/b.yaml", text=OPEN)
    result = run(pytester, "scenarios", "--device", "cuda", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*device: cuda, and there is no GPU here*"])


def test_what_was_read_says_the_device_that_was_decided(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(OPEN + "matrix: {checkpoint.async_mode: [async]}\n", encoding="utf-8")
    (found,) = read_file(path, gpus=1, device="cuda").values()
    assert not isinstance(found, ScenarioError)
    assert (found.scenario.device, found.source.data["device"]) == ("cuda", "cuda")
