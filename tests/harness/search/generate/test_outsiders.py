"""What comes from outside of a job while it runs: only what is certain to be survived is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from harness.faults.actions import Action, Foreign, Latest
from harness.faults.by_hand import ByHand
from harness.faults.point import Point
from harness.faults.second_job import SecondJob
from harness.scenario.schema import Checkpoint, Run
from harness.search.generate.actions import free_names
from harness.search.generate.ground import Ground
from harness.search.generate.outsiders import (
    draw_by_hand,
    draw_second_job,
    has_second_job,
    standing,
)
from harness.search.generate.past import Past
from harness.search.generate.strategies import typical_menu
from harness.world import World

AT_STEP_7 = Point(step=7)
IN_SAVE_3 = Point(save=3, phase="flush")
DRAWS = 600


def ground(number: int = 0, **settings: object) -> Ground:
    """A run that saves steps 2, 4 and 6 of 8."""
    return Ground(
        number=number,
        is_last=False,
        world=World(dp_shard=2),
        checkpoint=Checkpoint.model_validate({"interval": 2, "keep_last_n": 2, **settings}),
        menu=typical_menu(2),
        without=frozenset(),
        first=0,
        until=8,
        saves=(2, 4, 6),
    )


def hands(where: Ground) -> Iterator[ByHand]:
    for number in range(DRAWS):
        yield from draw_by_hand(Random(f"hand {number}"), where)  # type: ignore[misc]


def seconds(where: Ground) -> Iterator[SecondJob]:
    for number in range(DRAWS):
        yield from draw_second_job(Random(f"second {number}"), where)  # type: ignore[misc]


def damages(action: Action) -> bool:
    return not isinstance(action, Foreign | Latest)


@pytest.mark.parametrize(
    ("where", "at", "steps"),
    [
        (ground(), AT_STEP_7, (4, 6)),
        (ground(), Point(step=6), (2, 4)),
        (ground(), Point(step=2), ()),
        (ground(keep_last_n=0), AT_STEP_7, (2, 4, 6)),
        (ground(keep_last_n=1), AT_STEP_7, (6,)),
        (ground(number=1), AT_STEP_7, (4, 6)),
        # A save under way has yet to count, and is about to remove the oldest.
        (ground(), IN_SAVE_3, (4,)),
        (ground(keep_last_n=1), IN_SAVE_3, ()),
        (ground(keep_last_n=0), IN_SAVE_3, (2, 4)),
        (ground(async_mode="async"), AT_STEP_7, (4,)),
        (ground(async_mode="async"), Point(step=7, once_published=True), (4, 6)),
        (ground(async_mode="async"), Point(step=1), ()),
        # Before its first step the first run has saved once.
        (ground(keep_last_n=0, dyn_ckpt_window={"stop": 4}), IN_SAVE_3, (2,)),
        # The third save of a run that resumed nobody knows where can be any.
        (ground(number=1), IN_SAVE_3, ()),
    ],
)
def test_a_checkpoint_stands_where_it_is_whole_and_retention_keeps_it(
    where: Ground, at: Point, steps: tuple[int, ...]
) -> None:
    assert standing(where, at) == steps


@pytest.mark.parametrize("mode", ["disabled", "async"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_hand_damages_nothing_but_the_newest_of_two_that_stand(number: int, mode: str) -> None:
    where = ground(number, async_mode=mode)
    found = [one for one in hands(where) if damages(one.by_hand)]
    assert len(found) > DRAWS // 20
    for one in found:
        *_, newest = there = standing(where, one.at)
        assert len(there) > 1
        path = getattr(one.by_hand, one.by_hand.word).path
        assert path.split("/")[0] == f"step_{newest}"


def test_a_hand_takes_the_only_checkpoint_where_a_save_follows_and_nothing_ends_the_run() -> None:
    lonely = [
        one
        for one in hands(replace(ground(keep_last_n=1), comes_through=True))
        if damages(one.by_hand)
    ]
    assert lonely
    for one in lonely:
        assert one.at.step is not None
        assert one.at.step <= 6
    assert not [one for one in hands(ground(keep_last_n=1)) if damages(one.by_hand)]


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_a_hand_leaves_latest_alone_while_a_save_may_be_about_to_swap_it(mode: str) -> None:
    found = [one for one in hands(ground(async_mode=mode)) if isinstance(one.by_hand, Latest)]
    assert found
    for one in found:
        assert one.at.step is not None
        assert one.at.once_published or mode == "disabled"


def test_a_hand_gives_no_name_twice() -> None:
    taken = frozenset({"notes.txt", "step_x", "best"})
    left = {
        one.by_hand.foreign.path
        for one in hands(replace(ground(), foreign=taken))
        if isinstance(one.by_hand, Foreign)
    }
    assert left == {"step_7.bak"}
    assert free_names(taken | left, ground().menu.layout, links=True) == ()


def test_a_link_of_a_hand_leads_to_a_checkpoint_that_is_there() -> None:
    for one in hands(ground()):
        if isinstance(one.by_hand, Foreign) and one.by_hand.foreign.kind == "link":
            assert standing(ground(), one.at)


def test_a_second_job_comes_when_the_first_has_saved_once() -> None:
    found = [one.at for one in seconds(ground())]
    assert {at.step for at in found if at.step is not None} == {3, 4, 5, 6}
    assert {at.save for at in found if at.step is None} == {2, 3}


def test_a_second_job_comes_while_there_is_something_left_to_save() -> None:
    last = [one.at for one in seconds(ground()) if one.at.save == 3]
    assert {at.phase for at in last} == {"stage", "flush", "seal"}


@pytest.mark.parametrize(
    "where",
    [
        replace(ground(), saves=()),
        replace(ground(), saves=(6,)),
        replace(ground(), world=World(dp_shard=3)),
        replace(ground(), without=frozenset({"two_jobs"})),
        ground(timeout_s=4.0),
    ],
    ids=["no save", "one save", "three ranks", "not promised", "short deadline"],
)
def test_no_second_job_comes_where_it_does_not_fit(where: Ground) -> None:
    assert not has_second_job(where)
    assert has_second_job(ground())


HAND = {"by_hand": {"delete": {"path": "step_4"}}}
BESIDE = {"by_hand": {"foreign": {"path": "best", "kind": "link"}}}


@pytest.mark.parametrize(
    ("fault", "certain"),
    [
        ({**HAND, "at": {"step": 5}}, (6, 8)),
        ({**HAND, "at": {"step": 7}}, (8,)),
        ({**HAND, "at": {"save": 4, "phase": "seal"}}, (8,)),
        ({**BESIDE, "at": {"step": 7}}, (6, 8)),
        ({"second_job": {"rank": 0, "refused": "in use"}, "at": {"step": 5}}, (6, 8)),
        ({"power_cut": {}, "at": {"step": 7}}, ()),
    ],
)
def test_what_is_certain_after_a_run_is_what_it_saved_after_the_last_deed(
    fault: dict[str, object], certain: tuple[int, ...]
) -> None:
    run = Run.model_validate({"until_step": 8, "faults": (fault,)})
    past = Past(checkpoint=Checkpoint(interval=2, keep_last_n=2)).after(run)
    assert past.certain == certain
    assert past.foreign == ({"best"} if "foreign" in str(fault) else set())
