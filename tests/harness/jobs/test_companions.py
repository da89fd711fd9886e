"""What the loop keeps beside the model comes back whole, or differs from then on."""

from __future__ import annotations

import pytest

from harness.jobs.training.companions import Companions

_RATES = (0.1, 0.2, 0.4, 0.3, 0.2, 0.1, 0.1)


def trained(steps: int, begin: Companions | None = None, done: int = 0) -> Companions:
    found = begin or Companions()
    for rate in _RATES[done : done + steps]:
        found.step(rate)
    return found


def test_the_loss_scale_doubles_after_three_steps() -> None:
    assert trained(3).extra()["scaler"] == {"scale": 131072.0, "growth_tracker": 0}
    assert trained(4).extra()["scaler"] == {"scale": 131072.0, "growth_tracker": 1}


def test_the_average_follows_the_first_values_fast() -> None:
    assert trained(1).average.value == pytest.approx(0.09)
    assert trained(2).average.value == pytest.approx(0.09 + 9 / 11 * 0.11)


def test_what_was_saved_and_loaded_goes_on_as_if_it_never_stopped() -> None:
    resumed = trained(3, Companions.from_extra(trained(4).extra()), done=4)
    assert resumed.describe() == trained(7).describe()


@pytest.mark.parametrize(
    ("name", "lost"),
    [("scaler", "scale"), ("scaler", "growth_tracker"), ("average", "value"),
     ("average", "updates")],
)  # fmt: skip
def test_each_value_that_is_lost_shows_at_once_or_later(name: str, lost: str) -> None:
    extra = trained(4).extra()
    del extra[name][lost]
    resumed = trained(3, Companions.from_extra(extra), done=4)
    assert resumed.describe() != trained(7).describe()


def test_nothing_given_back_is_a_fresh_start() -> None:
    assert Companions.from_extra({}).describe() == Companions().describe()
