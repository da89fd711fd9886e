"""Shard files: stock DCP and torch can read ours, and we can read theirs."""

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from kempnerforge.checkpoint.archives.archive_template import ALIGNMENT, memory_of, template_of
from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.checkpoint.bulk.plans import PlanBook
from kempnerforge.checkpoint.bulk.reading import Answerable, read_shards
from kempnerforge.checkpoint.bulk.shards import (
    StagedShards,
    encode_metadata,
    merge_plans,
    stage_shards,
    write_shards,
)
from kempnerforge.checkpoint.bulk.staging import KeptBuffers, LiveTensors
from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.runtime.storage import checksum_file

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
STAGERS = [LiveTensors, lambda: KeptBuffers(pinned=False), lambda: KeptBuffers(pinned=True)]


def _values() -> dict[str, Any]:
    torch.manual_seed(4)
    large = torch.randn(700, 700)
    return {
        "model": {
            **{str(dtype): (torch.rand(3, 5) * 9).to(dtype) for dtype in DTYPES},
            "large": large,
            "transposed": large.t()[:600],
            "scalar": torch.tensor(7.5),
            "empty": torch.zeros(0, 4),
            "complex": torch.randn(3, dtype=torch.complex64),
            "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
            "parameter": torch.nn.Parameter(torch.randn(2)),
        },
        "groups": [{"lr": 0.1, "names": ["a", "b"], "betas": (0.9, 0.95)}],
    }


def _empty(values: dict[str, Any]) -> dict[str, Any]:
    blank = {name: torch.zeros_like(value) for name, value in values["model"].items()}
    return {"model": blank, "groups": [{"lr": 0.0, "names": [], "betas": ()}]}


def _write(directory: Path, staged: StagedShards) -> None:
    plans, metadata = merge_plans([staged.planned.plan])
    written = write_shards(directory, plans[0], staged)
    (name,) = written.files
    assert checksum_file(directory / name) == written.files[name]
    data = encode_metadata(metadata, [(plans[0], written)], save_id="0" * 16)
    (directory / ".metadata").write_bytes(data)


def _equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name].dtype == value.dtype
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("stager", STAGERS, ids=["live", "kept", "pinned"])
def test_stock_dcp_reads_every_bit_of_the_first_and_the_second_save(
    tmp_path: Path, stager: Any
) -> None:
    kept = stager()
    values = _values()
    for turn in ("one", "two"):
        (tmp_path / turn).mkdir()
        staged = stage_shards(values, stager=kept, is_coordinator=True)
        kept.finish()
        _write(tmp_path / turn, staged)
        found = _empty(values)
        load(found, checkpoint_id=tmp_path / turn, no_dist=True)
        _equal(values["model"], found["model"])
        assert found["groups"] == values["groups"]
        with torch.no_grad():
            values["model"]["large"].add_(1)
        values["groups"][0]["lr"] = 0.2


def test_a_copied_state_is_that_of_the_moment_it_was_taken(tmp_path: Path) -> None:
    values = _values()
    expected = {name: value.detach().clone() for name, value in values["model"].items()}
    staged = stage_shards(values, stager=KeptBuffers(pinned=False), is_coordinator=True)
    with torch.no_grad():
        for value in values["model"].values():
            value.zero_()
    _write(tmp_path, staged)
    found = _empty(values)
    load(found, checkpoint_id=tmp_path, no_dist=True)
    _equal(expected, found["model"])


def _read(
    directory: Path, values: dict[str, Any], *, live: bool, answerable: Answerable | None = None
) -> dict[str, Any]:
    file = directory / ".metadata"
    metadata = decode_metadata(file.read_bytes(), where=str(file))
    blank = {f"model.{name}": value for name, value in _empty(values)["model"].items()}
    names = set(blank) if live else set()
    read = read_shards(
        directory,
        metadata,
        {**blank, "groups.0.names": None},
        live=names,
        answerable=answerable,
    )
    if live:
        assert all(not value.any() for value in blank.values())
    read.hand_over()
    return {name.removeprefix("model."): value for name, value in blank.items()}


@pytest.mark.parametrize("live", [True, False])
def test_what_we_wrote_is_read_back_and_tensors_in_use_wait(tmp_path: Path, live: bool) -> None:
    values = _values()
    _write(tmp_path, stage_shards(values, stager=LiveTensors(), is_coordinator=True))
    _equal(values["model"], _read(tmp_path, values, live=live))


@pytest.mark.parametrize("live", [True, False])
def test_what_stock_dcp_wrote_is_read_and_tensors_in_use_wait(tmp_path: Path, live: bool) -> None:
    values = _values()
    values["groups"] = {"0": {"names": ["a"]}}
    save(values, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    _equal(values["model"], _read(tmp_path, values, live=live))


def test_damage_to_what_stock_dcp_wrote_is_damage_or_not_seen(tmp_path: Path) -> None:
    """DCP keeps no checksums, so not all of it can be seen."""
    save({"x": torch.ones(3)}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    metadata = decode_metadata((tmp_path / ".metadata").read_bytes(), where=".metadata")
    file = tmp_path / "__0_0.distcp"
    data = file.read_bytes()
    seen = 0
    for at in range(0, len(data), 7):
        file.write_bytes(_flipped(data, at, at % 8))
        try:
            read_shards(tmp_path, metadata, {"x": torch.zeros(3)})
        except CorruptCheckpointError:
            seen += 1
    assert seen > 10


def test_what_cannot_be_read_into_its_place_goes_there_at_once_unless_training_uses_it(
    tmp_path: Path,
) -> None:
    values = _values()
    _write(tmp_path, stage_shards(values, stager=LiveTensors(), is_coordinator=True))
    file = tmp_path / ".metadata"
    metadata = decode_metadata(file.read_bytes(), where=str(file))
    saved = {name: values["model"][name] for name in ("large", "scalar", "empty", "parameter")}
    targets = {
        f"model.{name}": torch.zeros_like(value, dtype=torch.float64)
        for name, value in saved.items()
    }
    read = read_shards(tmp_path, metadata, targets, live={"model.parameter"})
    held = [target.data_ptr() for target in read.targets]
    assert held == [targets["model.parameter"].data_ptr()]
    assert not targets["model.parameter"].any()
    read.hand_over()
    for name, value in saved.items():
        assert torch.equal(targets[f"model.{name}"], value.detach().double())


class Answers:
    """Asks for one file in full."""

    def __init__(self, file: Path) -> None:
        self.name, self.record, self.intact = file.name, checksum_file(file), False

    def expected(self, name: str) -> FileRecord | None:
        return self.record if name == self.name else None

    def found_intact(self, name: str) -> None:
        self.intact |= name == self.name


@pytest.mark.parametrize("whole", [True, False])
def test_reads_that_come_up_short_are_continued(
    tmp_path: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = _values()
    _write(tmp_path, stage_shards(values, stager=LiveTensors(), is_coordinator=True))
    answers = Answers(tmp_path / "__0_0.distcp")
    genuine, reads = os.preadv, []

    def short(fd: int, parts: list[memoryview], offset: int) -> int:
        reads.append(offset)
        first = next(part for part in parts if part)
        return genuine(fd, [first[:10_000]], offset)

    monkeypatch.setattr(os, "preadv", short)
    found = _read(tmp_path, values, live=True, answerable=answers if whole else None)
    _equal(values["model"], found)
    assert answers.intact is whole
    assert len(reads) > values["model"]["large"].nbytes / 10_000


def test_a_bit_that_flips_after_verification_does_not_reach_the_model(tmp_path: Path) -> None:
    values = _values()
    _write(tmp_path, stage_shards(values, stager=LiveTensors(), is_coordinator=True))
    file = tmp_path / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[data.index(bytes(memory_of(values["model"]["large"])[:64])) + 5] ^= 8
    file.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match="differ from their checksum"):
        _read(tmp_path, values, live=True)


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_a_flipped_bit_before_the_data_of_a_tensor_is_damage(tmp_path: Path) -> None:
    _write(tmp_path, stage_shards({"x": torch.ones(3)}, stager=LiveTensors(), is_coordinator=True))
    metadata = decode_metadata((tmp_path / ".metadata").read_bytes(), where=".metadata")
    file, frame = tmp_path / "__0_0.distcp", template_of(torch.float32, (3,))
    assert frame is not None
    data = file.read_bytes()
    for at in range(len(frame.head)):
        file.write_bytes(_flipped(data, at, at % 8))
        with pytest.raises(CorruptCheckpointError, match=r"__0_0\.distcp"):
            read_shards(tmp_path, metadata, {"x": torch.zeros(3)})


def test_an_archive_of_another_program_may_have_the_length_of_a_frame(tmp_path: Path) -> None:
    _write(tmp_path, stage_shards({"x": torch.ones(3)}, stager=LiveTensors(), is_coordinator=True))
    metadata = decode_metadata((tmp_path / ".metadata").read_bytes(), where=".metadata")
    metadata.storage_meta = StorageMeta(checkpoint_id=tmp_path, save_id="1")
    file = tmp_path / "__0_0.distcp"
    date_at = 10  # of a record, in its header
    file.write_bytes(_flipped(file.read_bytes(), date_at, 2))
    found = torch.zeros(3)
    read_shards(tmp_path, metadata, {"x": found})
    assert found.tolist() == [1.0, 1.0, 1.0]


def test_a_plan_is_used_again_until_a_name_a_shape_or_a_dtype_changes() -> None:
    stager = KeptBuffers(pinned=False)

    def plan_id(**tensors: torch.Tensor) -> str:
        return stage_shards(tensors, stager=stager, is_coordinator=True).plan_id

    first = plan_id(x=torch.zeros(2))
    assert plan_id(x=torch.ones(2)) == first
    seen = {first}
    for changed in (
        {"y": torch.zeros(2)},
        {"x": torch.zeros(3)},
        {"x": torch.zeros(3, dtype=torch.int64)},
        {"x": torch.zeros(3), "z": torch.zeros(1)},
    ):
        seen.add(plan_id(**changed))
    assert len(seen) == 5


def test_plans_travel_once_and_again_after_an_answer_that_was_missed() -> None:
    root, other = PlanBook(), PlanBook()
    staged = stage_shards({"x": torch.zeros(2)}, stager=LiveTensors(), is_coordinator=True)
    proposed = other.propose(staged)
    assert proposed.planned is not None
    missed = root.merge([proposed], {None: (0,)})
    again = other.propose(staged)
    assert again.planned is not None
    assert root.merge([again], {None: (0,)}) is missed
    assigned = missed.assign(0, again)
    part = other.accept(staged, assigned)
    third = other.propose(staged)
    assert third.planned is None
    assert root.merge([third], {None: (0,)}).assign(0, third).plan is None
    assert other.accept(staged, missed.assign(0, third)) is part


@given(
    shape=st.lists(st.integers(0, 5), max_size=4).map(tuple),
    dtype=st.sampled_from(DTYPES),
)
def test_a_frame_makes_the_archive_that_torch_and_zip_read(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    tensor = (torch.arange(1000) % 7)[: torch.Size(shape).numel()].reshape(shape).to(dtype)
    frame = template_of(dtype, shape)
    assert frame is not None
    assert len(frame.head) % ALIGNMENT == 0
    data = bytes(memory_of(tensor))
    archive = bytearray(frame.head + data + frame.tail)
    frame.put_crc(archive, 0, len(archive) - len(frame.tail), zlib.crc32(data))
    assert len(archive) == frame.length
    assert frame.crc_in(archive[: len(frame.head)]) == zlib.crc32(data)
    assert zipfile.ZipFile(io.BytesIO(archive)).testzip() is None
    found = torch.load(io.BytesIO(archive), weights_only=True)
    assert found.dtype == dtype
    assert found.stride() == tensor.stride()
    assert torch.equal(found, tensor)
