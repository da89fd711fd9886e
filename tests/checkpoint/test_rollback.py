"""A job continues from an older checkpoint: what is retained, deleted, and fallen back to."""

from pathlib import Path
from typing import Any

from tests.checkpoint.training import Job


def new(directory: Path, **options: Any) -> Job:
    return Job(directory, 0, seed=1, **options)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def test_retention_keeps_the_newest_of_the_lineage_after_a_rollback(tmp_path: Path) -> None:
    job = new(tmp_path, keep_last_n=2)
    for step in (50, 100, 110):
        job.save(step)
    job.load(str(tmp_path / "checkpoints" / "step_100"))
    job.save(60)
    job.save(70)
    assert names(tmp_path) == ["latest", "step_60", "step_70"]


def test_what_a_rollback_went_on_from_stays_and_is_fallen_back_to(tmp_path: Path) -> None:
    job = new(tmp_path, keep_last_n=3)
    for step in (10, 20, 30):
        job.save(step)
    job.load(str(tmp_path / "checkpoints" / "step_20"))
    job.save(25)
    assert names(tmp_path) == ["latest", "step_10", "step_20", "step_25"]
    (tmp_path / "checkpoints" / "step_25" / "train_state.pt").unlink()
    assert new(tmp_path).load()[0] == 20


def test_an_abandoned_branch_is_the_last_resort(tmp_path: Path) -> None:
    job = new(tmp_path, keep_last_n=0)
    for step in (10, 20, 30):
        job.save(step)
    job.load(str(tmp_path / "checkpoints" / "step_20"))
    job.save(25)
    job.save(25)  # the emergency save of a step that was just saved
    for damaged, next_best in ((25, 20), (20, 10), (10, 30)):
        (tmp_path / "checkpoints" / f"step_{damaged}" / "train_state.pt").unlink()
        again = new(tmp_path)
        assert again.load()[0] == next_best
        assert again.manager.last_load is not None
        assert len(again.manager.last_load.passed_over) == (25, 20, 10).index(damaged) + 1
