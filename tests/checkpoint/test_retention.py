"""Which checkpoints can be deleted."""

from hypothesis import given
from hypothesis import strategies as st

from kempnerforge.checkpoint.protocol.retention import Kept, RetentionPolicy
from kempnerforge.config.schema import DynamicCheckpointWindow

histories = st.lists(st.integers(0, 50), unique=True, max_size=12).map(
    lambda steps: [Kept(step=step, sequence=n) for n, step in enumerate(steps, start=1)]
)


def victims(policy: RetentionPolicy, steps: list[int], *protected: int) -> tuple[int, ...]:
    kept = [Kept(step=step, sequence=n) for n, step in enumerate(steps, start=1)]
    return policy.victims(kept, protected=protected)


def test_the_oldest_go_first() -> None:
    assert victims(RetentionPolicy(keep_last_n=2), [10, 20, 30, 40]) == (10, 20)


def test_after_a_rollback_the_abandoned_higher_steps_go() -> None:
    assert victims(RetentionPolicy(keep_last_n=2), [100, 110, 60, 70], 70) == (100, 110)


def test_what_was_rolled_back_from_goes_before_what_training_goes_on_from() -> None:
    kept = [
        Kept(step=10, sequence=1),
        Kept(step=20, sequence=2),
        Kept(step=30, sequence=3, abandoned=True),
        Kept(step=25, sequence=4),
    ]
    assert RetentionPolicy(keep_last_n=3).victims(kept) == (30,)
    assert RetentionPolicy(keep_last_n=2).victims(kept) == (30, 10)
    assert RetentionPolicy(keep_last_n=2).victims(kept, protected=[30]) == (10,)


def test_zero_and_less_keep_all() -> None:
    assert victims(RetentionPolicy(keep_last_n=0), [1, 2, 3]) == ()
    assert victims(RetentionPolicy(keep_last_n=-1), [1, 2, 3]) == ()


def test_milestones_neither_go_nor_count() -> None:
    window = DynamicCheckpointWindow(start=0, stop=4)
    policy = RetentionPolicy(keep_last_n=1, is_milestone=window.contains)
    assert victims(policy, [1, 2, 3, 4, 5]) == (3,)


@given(histories, st.integers(-2, 6), st.sets(st.integers(0, 50)))
def test_victims_are_unprotected_oldest_and_no_more_than_needed(
    history: list[Kept], keep: int, protected: set[int]
) -> None:
    policy = RetentionPolicy(keep_last_n=keep, is_milestone=lambda step: step % 7 == 0)
    gone = set(policy.victims(history, protected=protected))
    assert not gone & protected
    assert not any(step % 7 == 0 for step in gone)
    if keep <= 0:
        assert not gone
        return
    counted = [kept for kept in history if kept.step % 7]
    newest = {kept.step for kept in counted[max(0, len(counted) - keep) :]}
    assert gone == {kept.step for kept in counted} - newest - protected


def damaged_victims(keep: int, *sound: bool) -> tuple[int, ...]:
    kept = [Kept(step=n, sequence=n, damaged=not whole) for n, whole in enumerate(sound, start=1)]
    return RetentionPolicy(keep_last_n=keep).victims(kept)


def test_no_sound_checkpoint_goes_for_the_sake_of_a_damaged_one() -> None:
    assert damaged_victims(2, True, False, True) == ()
    assert damaged_victims(2, True, False, True, True) == (1, 2)
    assert damaged_victims(2, False, False) == ()


@given(st.lists(st.booleans(), max_size=10), st.integers(1, 4))
def test_as_many_sound_ones_stay_as_there_are_to_keep(sound: list[bool], keep: int) -> None:
    gone = damaged_victims(keep, *sound)
    stay = [whole for n, whole in enumerate(sound, start=1) if n not in gone]
    assert sum(stay) == min(keep, sum(sound))
    if gone:
        assert max(gone) < min(
            n for n, whole in enumerate(sound, start=1) if whole and n not in gone
        )
