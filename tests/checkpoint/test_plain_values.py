"""Plain values are read fast, as torch.load reads them, and nothing that it would refuse."""

import builtins
import contextlib
import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kempnerforge.checkpoint.archives.plain_values import decode_plain, read_plain_values
from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.state.train_state import build_train_state

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8]

tensors = st.builds(
    lambda dtype, sizes: torch.arange(math.prod(sizes)).reshape(sizes).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 3), max_size=3),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=12,
)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


@settings(max_examples=200, deadline=None)
@given(value=values)
def test_what_torch_saves_is_read_as_torch_reads_it(value: object) -> None:
    data = saved(value)
    found = read_plain_values(data)
    assert found is not None
    assert same(found[0], torch.load(io.BytesIO(data), weights_only=True))


def test_a_train_state_is_of_the_common_form() -> None:
    assert read_plain_values(saved(build_train_state(3, 30, extra={"note": "x"}))) is not None


def test_views_of_one_storage_still_share_it() -> None:
    whole = torch.arange(6.0)
    found = read_plain_values(saved([whole[:3], whole[1:].view(5)]))
    assert found is not None
    one, other = found[0]
    one[1] = 9.0
    assert other[0] == 9.0


class _Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def with_pickle(code: bytes) -> bytes:
    """An archive of torch's form around a pickle of our own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (
            ("data.pkl", code),
            ("byteorder", b"little"),
            ("version", b"3\n"),
            ("data/0", bytes(16)),
        ):
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORED = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nK\x04tQ"
HOSTILE = {
    "a call": pickle.dumps(_Runs(os.mkdir, "made"), 2),
    "a call by a builtin": pickle.dumps(_Runs(builtins.eval, "__import__('os').mkdir('made')"), 2),
    "an attribute of a known function": REBUILD + b"(N(dV__code__\nNstb.",
    "the state of a known function": REBUILD + b"(dVx\nK\x01sb.",
    "the state of a storage type": b"ctorch\nFloatStorage\n(dVdtype\nK\x01sb.",
    "an instance of a known function": REBUILD + b")\x81.",
    "a storage that is called": b"ctorch\nFloatStorage\n)R.",
    "a storage of another name": b"ctorch\nUntypedStorage\n.",
    "a name below a known one": b"\x80\x04\x8c\x05torch\x8c\x0f_utils.torch.os\x93.",
    "a persistent id that is none": b"(Vmodule\nV0\ntQ.",
    "a dict with an argument": b"ccollections\nOrderedDict\n((dtR.",
    "no pickle": b"\x00",
    "a tensor beyond its storage": REBUILD + b"(" + STORED + b"K\x00(K\x63t(K\x01tI00\nNtR.",
    "a tensor before its storage": REBUILD
    + b"("
    + STORED
    + b"J\xf0\xff\xff\xff(K\x01t(K\x01tI00\nNtR.",
}


def test_the_hostile_frame_itself_is_read_when_it_is_harmless() -> None:
    harmless = REBUILD + b"(" + STORED + b"K\x00(K\x04t(K\x01tI00\nNtR."
    found = read_plain_values(with_pickle(harmless))
    assert found is not None
    assert torch.equal(found[0], torch.zeros(4))


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_but_plain_values_is_built(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = with_pickle(HOSTILE[name])
    assert read_plain_values(data) is None
    with pytest.raises(CheckpointError):
        decode_plain(data, where="here")
    assert not (tmp_path / "made").exists()


def test_a_dict_that_carries_attributes_gets_no_code_to_run() -> None:
    odd = b"ccollections\nOrderedDict\n)R(dVkeys\nK\x01sb."
    found = read_plain_values(with_pickle(odd))
    assert found is None or len(found[0]) == 0


def test_arrays_are_left_to_torch() -> None:
    data = saved({"numpy": np.arange(3)})
    assert read_plain_values(data) is None
    assert decode_plain(data, where="here")["numpy"].tolist() == [0, 1, 2]


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_damage_never_escapes_as_another_error(place: float, flip: int) -> None:
    data = bytearray(saved({"a": torch.arange(5), "b": [1, 2.5, "x"]}))
    data[int(place * len(data))] ^= flip
    with contextlib.suppress(CheckpointError):
        decode_plain(bytes(data), where="here")
