"""A rank that exits records it, and no other rank waits for it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from kempnerforge.checkpoint import PeerLostError
from kempnerforge.checkpoint.runtime import departure
from kempnerforge.checkpoint.runtime.meeting import Meeting


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


def test_who_waits_when_another_gives_up_hears_for_whom_and_not_that_it_came_late(
    store: Any,
) -> None:
    first, second, late = (
        Meeting(store, name="test", rank=rank, members=[0, 1, 2]) for rank in (0, 2, 1)
    )
    for meeting in (first, second, late):
        meeting.begin_attempt()
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(first.gather, timeout_s=60.0)
        store.wait(["kempnerforge/test/arrived/0/0"])
        with pytest.raises(PeerLostError, match="rank 1 did not come"):
            second.gather(timeout_s=0.0)
        with pytest.raises(PeerLostError, match="another rank gave up waiting for rank 1"):
            waiting.result()
    with pytest.raises(PeerLostError, match="this rank came too late"):
        late.gather(timeout_s=60.0)


def test_a_job_that_ends_in_order_says_nothing(store: Any) -> None:
    dist.destroy_process_group()
    departure._say()
    departure.require_present(store, [0])
