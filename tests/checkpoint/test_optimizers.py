"""Optimizers resume exactly, whatever state they keep and wherever they keep it."""

from pathlib import Path

from tests.checkpoint import optimizer_jobs
from tests.checkpoint.optimizers import KINDS
from tests.checkpoint.ranks import run_ranks

BOUND_TO_RANKS = {"muon", "factored_locally", "factored"}


def test_every_optimizer_resumes_exactly_twice_and_only_there_where_it_can(tmp_path: Path) -> None:
    for found in run_ranks(optimizer_jobs.resume_twice, tmp_path, KINDS, world=2):
        assert found == dict.fromkeys(KINDS, (True, False))
    (elsewhere,) = run_ranks(optimizer_jobs.load_elsewhere, tmp_path, KINDS, world=1)
    refused = {kind for kind, answer in elsewhere.items() if answer != "6"}
    assert refused == BOUND_TO_RANKS
    for kind in refused:
        assert elsewhere[kind].startswith("RedistributionError")
        assert "belong to single ranks" in elsewhere[kind]
