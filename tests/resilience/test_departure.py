"""A rank that leaves says so, and nobody waits for it to come."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch.distributed as dist

from kempnerforge.checkpoint import PeerLostError, departure
from kempnerforge.checkpoint.meeting import Meeting


@pytest.fixture
def store() -> Iterator[Any]:
    """That of a job in which this process is rank 0."""
    stores: Any = dist  # has no types for them
    dist.init_process_group("gloo", store=stores.HashStore(), rank=0, world_size=1)
    c10d: Any = dist.distributed_c10d
    yield c10d._get_default_store()
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_rank_that_has_left_is_named_to_those_who_need_it(store: Any) -> None:
    departure.require_present(store, [0, 1])
    departure._say()
    departure.require_present(store, [1, 2])
    with pytest.raises(PeerLostError, match="rank 0 has ended its program"):
        departure.require_present(store, [2, 0])


def test_who_gathers_does_not_wait_for_a_rank_that_has_left(store: Any) -> None:
    departure._say()
    meeting = Meeting(store, name="test", rank=1, members=[0, 1])
    meeting.begin_attempt()
    with pytest.raises(PeerLostError, match="rank 0 has ended its program"):
        meeting.gather(timeout_s=60.0)


def test_a_job_that_ends_in_order_says_nothing(store: Any) -> None:
    dist.destroy_process_group()
    departure._say()
    departure.require_present(store, [0])
