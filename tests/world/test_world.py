"""Real models and optimizers, killed and resumed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.world.catalogue import THINGS
from tests.world.client import Server
from tests.world.forgetful import FORGETFUL

SIGKILL = 9
pytestmark = pytest.mark.timeout(900)  # the fence of tests that start jobs


def _states(answer: dict[str, Any]) -> list[dict[str, dict[str, str]]]:
    """By rank and step; a rank that reported something else fails the test."""
    wrong = [
        f"rank {rank}: {report['error']}"
        for rank, report in enumerate(answer["reports"])
        if "states" not in report
    ]
    assert not wrong, "\n".join(wrong)
    return [report["states"] for report in answer["reports"]]


def _differences(expected: Any, found: Any) -> dict[str, tuple[Any, Any]]:
    """Name at rank and step to what was expected and what there is."""
    different = {}
    for rank, steps in enumerate(found):
        for step, state in steps.items():
            want = expected[rank][step]
            # A state right after a load has no loss, which is no state.
            for name in (want.keys() | state.keys()) - ({"loss"} if "loss" not in state else set()):
                if want.get(name) != state.get(name):
                    place = f"rank {rank}, step {step}: {name}"
                    different[place] = (want.get(name), state.get(name))
    return dict(sorted(different.items()))


@pytest.mark.parametrize("name", THINGS)
def test_what_is_killed_and_resumed_goes_on_bit_for_bit(
    name: str, world_server: Server, tmp_path: Path
) -> None:
    missing = [need for need in THINGS[name].needs if importlib.util.find_spec(need) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install --no-deps --group world")
    expected = _states(world_server.run(name, "uninterrupted", tmp_path))
    assert all(steps["1"]["loss"] != steps["6"]["loss"] for steps in expected)
    moved = {
        key for key in expected[0]["1"]
        if key.startswith("model.") and expected[0]["1"][key] != expected[0]["6"][key]
    }  # fmt: skip
    assert moved
    for phase in ("killed", "resumed"):
        answer = world_server.run(name, phase, tmp_path)
        assert _differences(expected, _states(answer)) == {}, phase
        assert answer["signals"] == [SIGKILL] * THINGS[name].ranks
    answer = world_server.run(name, "resumed again", tmp_path)
    assert _differences(expected, _states(answer)) == {}
    assert [sorted(steps) for steps in _states(answer)] == [["4", "5", "6"]] * THINGS[name].ranks


@pytest.mark.parametrize("name", FORGETFUL)
def test_what_a_program_loses_is_named_when_it_resumes(
    name: str, world_server: Server, tmp_path: Path
) -> None:
    expected = _states(world_server.run(name, "uninterrupted", tmp_path))
    assert _differences(expected, _states(world_server.run(name, "killed", tmp_path))) == {}
    found = _differences(expected, _states(world_server.run(name, "resumed", tmp_path)))
    lost = FORGETFUL[name][1]
    assert f"rank 0, step 2: {lost}" in found
    assert [place for place in found if "step 2: " in place and lost not in place] == []


def test_the_page_of_what_is_supported_names_each_thing() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "support.md").read_text(encoding="utf-8")
    assert [name for name in THINGS if f"`{name}`" not in page] == []
