"""What the code asks of CUDA, checked without a GPU by fake tensors and recording functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from kempnerforge.checkpoint import StateMismatchError, get_rng_state, set_rng_state
from kempnerforge.checkpoint.bulk import staging
from kempnerforge.checkpoint.bulk.staging import BufferLayout, KeptBuffers, LiveTensors
from kempnerforge.checkpoint.state.checked import RestoreCheck
from kempnerforge.checkpoint.state.model_state import LiveModel
from kempnerforge.checkpoint.state.restoring import RestoreTargets
from tests.checkpoint.training import Job

GPU = torch.device("cuda", 1)
LARGE = 1 << 15
"""Numbers: 128 KiB, which a save that training waits for does not copy."""


class Pinned(torch.Tensor):
    def is_pinned(self, device: Any = None) -> bool:
        return True


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that were waited for. All tensors are taken for tensors on one GPU."""
    found: list[torch.device] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self._device = device

        def synchronize(self) -> None:
            found.append(self._device)

    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(staging, "_accelerators", lambda _: {GPU})
    return found


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether pinned memory was asked for, buffer by buffer that has anything in it."""
    found: list[bool] = []
    allocate = BufferLayout.allocate

    def listen(self: BufferLayout, *, pinned: bool) -> torch.Tensor:
        if self.items:
            found.append(pinned)
        buffer = allocate(self, pinned=False)
        return buffer.as_subclass(Pinned) if pinned else buffer

    monkeypatch.setattr(BufferLayout, "allocate", listen)
    return found


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each copy was one that does not wait."""
    found: list[bool] = []
    copy = torch._foreach_copy_

    def listen(targets: Any, sources: Any, non_blocking: bool = False) -> None:
        found.append(non_blocking)
        copy([one.as_subclass(torch.Tensor) for one in targets], sources)

    monkeypatch.setattr(torch, "_foreach_copy_", listen)
    return found


def item(name: str, tensor: torch.Tensor) -> WriteItem:
    size = tensor.shape
    return WriteItem(
        index=MetadataIndex(name),
        type=WriteItemType.TENSOR,
        tensor_data=TensorWriteData(
            chunk=ChunkStorageMetadata(offsets=torch.Size([0]), sizes=size),
            properties=TensorProperties.create_from_tensor(tensor),
            size=size,
        ),
    )


VALUES = [torch.arange(4.0), torch.arange(float(LARGE))]
ITEMS = tuple(item(name, value) for name, value in zip("ab", VALUES, strict=True))


@pytest.mark.parametrize("pinned", [True, False])
def test_pinned_memory_is_filled_without_waiting_and_waited_for_once(
    waited: list[torch.device], allocated: list[bool], copies: list[bool], *, pinned: bool
) -> None:
    buffers = KeptBuffers(pinned=pinned)
    for _ in range(2):
        buffers.take(ITEMS, VALUES)
    assert (allocated, copies, waited) == ([pinned], [pinned] * 2, [])
    buffers.finish()
    buffers.finish()
    assert waited == [GPU]


def test_what_is_not_copied_is_computed_before_another_thread_reads_it(
    waited: list[torch.device],
) -> None:
    live = LiveTensors()
    image = live.take(ITEMS, VALUES)
    assert image.others[1] is VALUES[1]
    live.finish()
    assert waited == [GPU]


def test_memory_is_not_pinned_for_tensors_of_the_host(
    allocated: list[bool], copies: list[bool]
) -> None:
    buffers = KeptBuffers(pinned=True)
    buffers.take(ITEMS, VALUES)
    buffers.finish()
    assert (allocated, copies) == ([False], [False])


def test_the_devices_of_tensors_are_known_without_asking_for_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeTensorMode():
        values = [torch.empty(2, device=name) for name in ("cpu", "cuda:0", "cuda:1", "cuda:1")]
    monkeypatch.setattr(torch.cuda, "is_available", refuse)
    found = staging._accelerators([*values, b"plain"])
    assert found == {torch.device("cuda:0"), torch.device("cuda:1")}


def refuse() -> bool:
    raise AssertionError("asking whether CUDA is available starts it")


def test_a_process_that_does_not_use_cuda_saves_without_starting_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", refuse)
    assert get_rng_state()["cuda"] == []
    for pinned in (True, False):
        KeptBuffers(pinned=pinned).take(ITEMS, VALUES)


class WithExtra(torch.optim.SGD):
    """Has an entry beside its state."""

    def __init__(self, params: Any, extra: torch.Tensor) -> None:
        super().__init__(params)
        self.extra = extra

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "extra": self.extra}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.extra = state_dict["extra"]


def test_what_an_optimizer_keeps_for_itself_goes_to_the_device_of_its_parameters() -> None:
    """And not to the current device, which for the thread that loads is always the first one."""
    with FakeTensorMode():
        model = torch.nn.ParameterList([torch.empty(2, device=GPU)])
        optimizer = WithExtra(model.parameters(), torch.empty(1, device=GPU))
        # As `own_state.encode` makes them of real tensors; those of this mode hold no numbers.
        kept = {
            where: {"kempnerforge.kind": "tensor", "tensor": torch.empty(2), "device": where}
            for where in ("cuda", "cpu")
        }
        own = {
            "state": {"0": {"counts": {0: kept["cuda"], 1: kept["cpu"]}}},
            "extra": {"extra": kept["cuda"]},
        }
        targets = RestoreTargets(
            live_model=LiveModel(model), optimizer=optimizer, own=own, restores_moments=True
        )
        targets.decide()
        targets.apply(RestoreCheck.off)
    found = optimizer.state[model[0]]["counts"]
    assert [found[key].device for key in (0, 1)] == [GPU, torch.device("cpu")]
    assert optimizer.extra.device == GPU


STATES = [torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3, 4], dtype=torch.uint8)]


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the generators of two devices were set to."""
    found: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # An optimizer's step asks, and a build for CUDA asks a driver that may not be there.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: STATES)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", found.extend)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: found.append(("current", state)))
    return found


def test_the_generators_of_all_devices_are_saved_and_restored(restored: list[Any]) -> None:
    state = get_rng_state()
    assert [one.tolist() for one in state["cuda"]] == [[1, 2], [3, 4]]
    set_rng_state({"cuda": state["cuda"]})
    assert [one.tolist() for one in restored] == [[1, 2], [3, 4]]


def test_generators_of_another_number_of_devices_are_refused(restored: list[Any]) -> None:
    with pytest.raises(ValueError, match="of 3 CUDA devices, this process sees 2; make the same"):
        set_rng_state({"cuda": [*STATES, STATES[0]]})
    assert restored == []


def test_a_load_refuses_generators_of_another_number_of_devices_before_anything_changes(
    tmp_path: Path, restored: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, 0, seed=1)
    job.train(2)
    job.save(2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    fresh = Job(tmp_path, 0, seed=9)
    before = fresh.digest()
    with pytest.raises(StateMismatchError, match="of 2 CUDA devices, this process sees 1"):
        fresh.load()
    assert fresh.digest() == before
    assert fresh.load(exclude_keys=["rng"])[0] == 2
    assert restored == []


def test_one_state_of_another_program_is_that_of_the_current_device(restored: list[Any]) -> None:
    set_rng_state({"torch_cuda": STATES[1]})
    assert [(place, state.tolist()) for place, state in restored] == [("current", [3, 4])]
