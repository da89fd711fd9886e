"""A checkpoint written by an older version loads as it did then."""

import tarfile
from pathlib import Path

import pytest

from tests.checkpoint import old_jobs
from tests.checkpoint.ranks import run_ranks

WRITTEN = Path(__file__).parent / "data" / "format_1.tar.xz"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with tarfile.open(WRITTEN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_each_rank_gets_its_own_of_a_checkpoint_of_format_1_and_saves_it_anew(
    directory: Path,
) -> None:
    found = run_ranks(old_jobs.load, directory, world=2)
    for rank, one in enumerate(found):
        assert one["again"] == ""
        assert (one["step"], one["extra"], one["lr"]) == (1, {"note": "n"}, 0.5)
        assert one["seen"] == [rank + 1.0] * 3
        assert one["state"] == old_jobs.EXTRA_STATE
        assert one["inner"] == {"n": rank, "t": [rank + 7.0]}
        assert one["moments"]["per"] == {0: [rank + 5.0] * 2, 1: (1, [])}
        assert one["moments"]["step"] == 1.0
        assert one["moments"]["exp_avg"] == pytest.approx([0.1, 0.1])
        assert one["drawn"] == 0.8444218515250481  # the first of random.seed(0)


def test_another_layout_is_refused_what_a_checkpoint_of_format_1_has_for_single_ranks(
    directory: Path,
) -> None:
    ((error, changed, weight, state),) = run_ranks(old_jobs.load_elsewhere, directory, world=1)
    assert error.startswith("RedistributionError")
    assert "belong to single ranks of the layout that saved them, the first: weight.per" in error
    assert changed == ""
    assert weight == pytest.approx([3.48, 3.48])
    assert state == old_jobs.EXTRA_STATE
