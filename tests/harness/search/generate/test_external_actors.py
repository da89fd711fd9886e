"""What comes from outside of a job while it runs: only what is certain to be survived is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from harness.faults.actions import Action, Foreign, SetLatest
from harness.faults.operator import Operator
from harness.faults.point import Point
from harness.faults.second_job import SecondJob
from harness.scenario.schema import Checkpoint, Run
from harness.search.generate.actions import free_names
from harness.search.generate.external_actors import (
    draw_operator,
    draw_second_job,
    has_second_job,
    standing,
)
from harness.search.generate.past import Past
from harness.search.generate.strategies import typical_candidates
from harness.search.generate.strikable import StrikableSpan
from harness.world import World

AT_STEP_7 = Point(step=7)
IN_SAVE_3 = Point(save=3, phase="flush")
DRAWS = 600


def strikable(number: int = 0, **settings: object) -> StrikableSpan:
    """A run that saves steps 2, 4 and 6 of 8."""
    return StrikableSpan(
        number=number,
        is_last=False,
        world=World(dp_shard=2),
        checkpoint=Checkpoint.model_validate({"interval": 2, "keep_last_n": 2, **settings}),
        candidates=typical_candidates(2),
        without=frozenset(),
        first=0,
        until=8,
        saves=(2, 4, 6),
    )


def effects(where: StrikableSpan) -> Iterator[Operator]:
    for number in range(DRAWS):
        yield from draw_operator(Random(f"hand {number}"), where)  # type: ignore[misc]


def seconds(where: StrikableSpan) -> Iterator[SecondJob]:
    for number in range(DRAWS):
        yield from draw_second_job(Random(f"second {number}"), where)  # type: ignore[misc]


def damages(action: Action) -> bool:
    return not isinstance(action, Foreign | SetLatest)


@pytest.mark.parametrize(
    ("where", "at", "steps"),
    [
        (strikable(), AT_STEP_7, (4, 6)),
        (strikable(), Point(step=6), (2, 4)),
        (strikable(), Point(step=2), ()),
        (strikable(keep_last_n=0), AT_STEP_7, (2, 4, 6)),
        (strikable(keep_last_n=1), AT_STEP_7, (6,)),
        (strikable(number=1), AT_STEP_7, (4, 6)),
        # A save under way has yet to count, and is about to remove the oldest.
        (strikable(), IN_SAVE_3, (4,)),
        (strikable(keep_last_n=1), IN_SAVE_3, ()),
        (strikable(keep_last_n=0), IN_SAVE_3, (2, 4)),
        (strikable(async_mode="async"), AT_STEP_7, (4,)),
        (strikable(async_mode="async"), Point(step=7, once_published=True), (4, 6)),
        (strikable(async_mode="async"), Point(step=1), ()),
        # Before its first step the first run has saved once.
        (strikable(keep_last_n=0, dyn_ckpt_window={"stop": 4}), IN_SAVE_3, (2,)),
        # The third save of a run that resumed nobody knows where can be any.
        (strikable(number=1), IN_SAVE_3, ()),
    ],
)
def test_a_checkpoint_stands_where_it_is_whole_and_retention_keeps_it(
    where: StrikableSpan, at: Point, steps: tuple[int, ...]
) -> None:
    assert standing(where, at) == steps


@pytest.mark.parametrize("mode", ["disabled", "async"])
@pytest.mark.parametrize("number", [0, 1])
def test_an_operator_damages_nothing_but_the_newest_of_two_that_stand(
    number: int, mode: str
) -> None:
    where = strikable(number, async_mode=mode)
    found = [one for one in effects(where) if damages(one.operator)]
    assert len(found) > DRAWS // 20
    for one in found:
        *_, newest = there = standing(where, one.at)
        assert len(there) > 1
        path = getattr(one.operator, one.operator.word).path
        assert path.split("/")[0] == f"step_{newest}"


def test_an_operator_takes_the_only_checkpoint_where_a_save_follows_and_nothing_ends_the_run() -> (
    None
):
    lonely = [
        one
        for one in effects(replace(strikable(keep_last_n=1), comes_through=True))
        if damages(one.operator)
    ]
    assert lonely
    for one in lonely:
        assert one.at.step is not None
        assert one.at.step <= 6
    assert not [one for one in effects(strikable(keep_last_n=1)) if damages(one.operator)]


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_an_operator_leaves_latest_alone_while_a_save_may_be_about_to_swap_it(mode: str) -> None:
    found = [
        one for one in effects(strikable(async_mode=mode)) if isinstance(one.operator, SetLatest)
    ]
    assert found
    for one in found:
        assert one.at.step is not None
        assert one.at.once_published or mode == "disabled"


def test_an_operator_gives_no_name_twice() -> None:
    taken = frozenset({"notes.txt", "step_x", "best"})
    left = {
        one.operator.foreign.path
        for one in effects(replace(strikable(), foreign=taken))
        if isinstance(one.operator, Foreign)
    }
    assert left == {"step_7.bak"}
    assert free_names(taken | left, strikable().candidates.layout, links=True) == ()


def test_a_link_of_an_operator_leads_to_a_checkpoint_that_is_there() -> None:
    for one in effects(strikable()):
        if isinstance(one.operator, Foreign) and one.operator.foreign.kind == "link":
            assert standing(strikable(), one.at)


def test_a_second_job_comes_when_the_first_has_saved_once() -> None:
    found = [one.at for one in seconds(strikable())]
    assert {at.step for at in found if at.step is not None} == {3, 4, 5, 6}
    assert {at.save for at in found if at.step is None} == {2, 3}


def test_a_second_job_comes_while_there_is_something_left_to_save() -> None:
    last = [one.at for one in seconds(strikable()) if one.at.save == 3]
    assert {at.phase for at in last} == {"stage", "flush", "seal"}


@pytest.mark.parametrize(
    "where",
    [
        replace(strikable(), saves=()),
        replace(strikable(), saves=(6,)),
        replace(strikable(), world=World(dp_shard=3)),
        replace(strikable(), without=frozenset({"two_jobs"})),
        strikable(timeout_s=4.0),
    ],
    ids=["no save", "one save", "three ranks", "not promised", "short deadline"],
)
def test_no_second_job_comes_where_it_does_not_fit(where: StrikableSpan) -> None:
    assert not has_second_job(where)
    assert has_second_job(strikable())


OPERATOR = {"operator": {"delete": {"path": "step_4"}}}
BESIDE = {"operator": {"foreign": {"path": "best", "kind": "link"}}}


@pytest.mark.parametrize(
    ("fault", "certain"),
    [
        ({**OPERATOR, "at": {"step": 5}}, (6, 8)),
        ({**OPERATOR, "at": {"step": 7}}, (8,)),
        ({**OPERATOR, "at": {"save": 4, "phase": "seal"}}, (8,)),
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
