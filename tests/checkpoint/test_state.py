"""Train state and generators."""

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kempnerforge.checkpoint import (
    UnsafeCheckpointError,
    build_train_state,
    get_rng_state,
    restore_train_state,
    set_rng_state,
)
from kempnerforge.checkpoint.archives.plain_values import decode_plain, encode_plain
from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.checkpoint.errors import CorruptCheckpointError


def draws() -> list[Any]:
    return [random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist()]


def test_generators_continue_where_they_were_captured_through_a_file() -> None:
    draws()
    data = encode_plain(get_rng_state(), what="rng")
    expected = [draws() for _ in range(3)]
    set_rng_state(decode_plain(data, where="rng"))
    assert [draws() for _ in range(3)] == expected


def test_capturing_draws_from_no_generator() -> None:
    set_rng_state(state := get_rng_state())
    expected = draws()
    set_rng_state(state)
    build_train_state(1, 2)
    assert draws() == expected


def test_a_numpy_state_in_the_legacy_form_is_read_from_a_plain_file() -> None:
    legacy = np.random.get_state()
    expected = np.random.rand(4).tolist()
    buffer = io.BytesIO()
    torch.save({"rng": {"numpy": legacy}, "loss": np.float64(2.5)}, buffer)
    found = decode_plain(buffer.getvalue(), where="train_state.pt")
    set_rng_state(found["rng"])
    assert np.random.rand(4).tolist() == expected
    assert found["loss"] == 2.5


def test_state_round_trips_with_scheduler_dataloader_and_extra() -> None:
    class Part:
        value = 3

        def state_dict(self) -> dict[str, int]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.value = state["value"]

    state = build_train_state(7, 70, Part(), Part(), {"phase": "warm"})
    scheduler, loader = Part(), Part()
    scheduler.value = loader.value = 0
    assert restore_train_state(state, scheduler, loader) == (7, 70, {"phase": "warm"})
    assert (scheduler.value, loader.value) == (3, 3)


def test_extra_cannot_take_a_key_of_the_state() -> None:
    with pytest.raises(ValueError, match=r"\['step'\]"):
        build_train_state(1, 2, extra={"step": 3})


class Hostile:
    """Runs a function when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self._marker,)


def test_a_train_state_that_asks_for_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"step": Hostile(tmp_path / "ran")}, buffer)
    with pytest.raises(UnsafeCheckpointError, match=r"train_state\.pt"):
        decode_plain(buffer.getvalue(), where="train_state.pt")
    assert not (tmp_path / "ran").exists()


def test_metadata_that_asks_for_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(UnsafeCheckpointError, match="not allowed"):
        decode_metadata(pickle.dumps(Hostile(tmp_path / "ran")), where=".metadata")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK", b"\x80\x02}", b"nonsense"])
def test_damaged_files_are_errors_of_ours(data: bytes) -> None:
    with pytest.raises((CorruptCheckpointError, UnsafeCheckpointError)):
        decode_plain(data, where="x")
    with pytest.raises((CorruptCheckpointError, UnsafeCheckpointError)):
        decode_metadata(data, where="x")


def test_an_object_that_a_load_would_refuse_is_refused_when_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="the train state holds an object"):
        encode_plain({"x": Hostile(tmp_path)}, what="the train state")


def test_an_empty_train_state_restores_to_the_beginning() -> None:
    assert restore_train_state({}) == (0, 0, {})


def test_generators_are_read_by_each_packages_own_function_through_a_file() -> None:
    draws()
    data = encode_plain(get_rng_state(), what="rng")
    expected = draws()
    found = decode_plain(data, where="rng")
    assert list(found) == ["python", "numpy", "torch_cpu", "torch", "torch_cuda", "cuda"]
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])
    torch.set_rng_state(found["torch_cpu"])
    assert draws() == expected
    assert found["torch"].data_ptr() == found["torch_cpu"].data_ptr()


@pytest.mark.parametrize(("cpu", "cuda"), [("torch", "cuda"), ("torch_cpu", "torch_cuda")])
def test_either_spelling_of_torchs_generators_is_restored(cpu: str, cuda: str) -> None:
    state = torch.get_rng_state()
    expected = torch.rand(3)
    set_rng_state({cpu: state, cuda: []})
    assert torch.equal(torch.rand(3), expected)


def test_a_numpy_state_as_this_package_saved_it_at_first_is_restored() -> None:
    np.random.rand(3)
    state: Any = np.random.get_state(legacy=False)
    key = state["state"]["key"]
    words = {"dtype": str(key.dtype), "values": key.tolist()}
    old = {
        "bit_generator": "MT19937",
        "state": {"key": words, "pos": state["state"]["pos"]},
        "has_gauss": 0,
        "gauss": 0.0,
    }
    expected = np.random.rand(4).tolist()
    set_rng_state({"numpy": old})
    assert np.random.rand(4).tolist() == expected


@pytest.mark.parametrize("name", ["PCG64", "Philox", "SFC64"])
def test_another_bit_generator_of_numpy_continues_through_a_file(name: str) -> None:
    global_generator: Any = np.random  # its types lack the two functions
    before = global_generator.get_bit_generator()
    global_generator.set_bit_generator(getattr(np.random, name)(5))
    try:
        np.random.randn()
        data = encode_plain(get_rng_state(), what="rng")
        expected = [np.random.randn(), *np.random.rand(5).tolist()]
        set_rng_state(decode_plain(data, where="rng"))
        assert [np.random.randn(), *np.random.rand(5).tolist()] == expected
    finally:
        global_generator.set_bit_generator(before)
