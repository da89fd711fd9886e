"""Step lines are found without being told what they look like."""

from __future__ import annotations

import pytest

from harness.run.command.steps import learn_step_lines

RUN = "loading\nstep 1 loss 5.25\nstep 2 loss 1e-3\nsaved step 2\nstep 3 loss 0.5\ndone 3\n"


@pytest.mark.parametrize(
    "line",
    ["step {n} loss 1.0", "Step: {n}, loss 2", "{{'step': {n}, 'loss': 3}}", "iteration {n}/10",
     "global_step={n} lr 1"],
)  # fmt: skip
def test_usual_lines_are_found(line: str) -> None:
    found = learn_step_lines("\n".join(line.format(n=number) for number in (2, 4, 6)))
    assert found is not None
    assert [one.step for one in found.lines] == [2, 4, 6]


@pytest.mark.parametrize("text", ["", "loss 3\nloss 2\n", "step 1\n", "step 3\nstep 2\nstep 1\n"])
def test_other_output_has_no_step_lines(text: str) -> None:
    assert learn_step_lines(text) is None


def test_several_ranks_can_say_the_same() -> None:
    found = learn_step_lines("step 1 of 3\nstep 2 of 3\nstep 1 of 3\nstep 2 of 3\nstep 3 of 3\n")
    assert found is not None
    assert [one.step for one in found.lines] == [1, 2, 3]


def test_what_it_says_of_a_checkpoint_is_no_step() -> None:
    found = learn_step_lines(RUN)
    assert found is not None
    resumed = "resumed from step 2\nstep 3 loss 0.5\n"
    assert found.first(resumed) == 3
    assert found.first_difference(resumed) is None
    assert found.first("resumed from step 3\n") is None


def test_the_first_other_line_is_found() -> None:
    found = learn_step_lines(RUN)
    assert found is not None
    other = found.first_difference("step 2 loss 1e-3\nstep 3 loss nan\n")
    assert other is not None
    assert other.text == "step 3 loss nan"


def test_an_expression_of_the_user_is_taken_as_it_is() -> None:
    found = learn_step_lines("at 10: ok\nat 10: ok\n", r"at (\d+)")
    assert found is not None
    assert found.first("at 10: ok\n") == 10
