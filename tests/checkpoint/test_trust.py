"""Files that ask for objects are refused unless trusted; old NumPy states need no trust."""

import io
import pickle
import re
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from kempnerforge.checkpoint import UnsafeCheckpointError
from kempnerforge.checkpoint.archives.plain_values import decode_plain
from kempnerforge.checkpoint.state.model_state import LiveModel, assemble
from tests.checkpoint.training import Job


def plain(directory: Path, **state: Any) -> Path:
    """A checkpoint of step 2 in the layout of another program, without a manifest."""
    job = Job(directory, 0, seed=1)
    path = directory / "checkpoints" / "step_2"
    with pytest.warns(UserWarning, match="single process"):
        dcp_save(assemble(LiveModel(job.model), job.optimizer).shared, checkpoint_id=str(path))
    torch.save({"step": 2, "tokens_seen": 20, **state}, path / "train_state.pt")
    (path / "metadata.json").write_text('{"step": 2, "tokens_seen": 20}')
    return path


def test_an_object_in_the_train_state_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = plain(tmp_path, ratio=Fraction(1, 3))
    with pytest.raises(UnsafeCheckpointError) as caught:
        Job(tmp_path, 0, seed=2).load(str(path))
    for part in ("train_state.pt", "fractions.Fraction", "set allow_unsafe_pickle"):
        assert part in str(caught.value)
    job = Job(tmp_path, 0, seed=2, allow_unsafe_pickle=True)
    assert job.load(str(path)) == (2, 20, {"ratio": Fraction(1, 3)})


def test_an_object_in_the_shard_metadata_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = plain(tmp_path)
    metadata = pickle.loads((path / ".metadata").read_bytes())  # noqa: S301  # just written
    metadata.planner_data = {**metadata.planner_data, "x": Fraction(1, 3)}
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(UnsafeCheckpointError) as caught:
        Job(tmp_path, 0, seed=2).load(str(path))
    for part in (".metadata", "fractions.Fraction", "set allow_unsafe_pickle"):
        assert part in str(caught.value)


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_the_path_that_stock_dcp_notes_is_read_as_any_python_wrote_it(
    tmp_path: Path, module: str
) -> None:
    """Python 3.13 pickles a path under a name of its own, which 3.11 and 3.12 do not have."""
    path = plain(tmp_path)
    file = path / ".metadata"
    metadata = pickle.loads(file.read_bytes())  # noqa: S301  # just written
    file.write_bytes(_with_paths_of(module, metadata))
    assert Job(tmp_path, 0, seed=2).load(str(path)) == (2, 20, {})
    metadata.planner_data = {**metadata.planner_data, "x": Fraction(1, 3)}
    file.write_bytes(_with_paths_of(module, metadata))
    job = Job(tmp_path, 0, seed=2, allow_unsafe_pickle=True)
    assert job.load(str(path)) == (2, 20, {})


def _with_paths_of(module: str, metadata: Any) -> bytes:
    """The metadata as the Python that has pathlib's classes in that module pickles it."""
    data, count = re.subn(
        rb"cpathlib(\._local)?\nPosixPath\n",
        b"c" + module.encode() + b"\nPosixPath\n",
        pickle.dumps(metadata, protocol=2),  # without the lengths of names that protocol 4 has
    )
    assert count == 1
    return data


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_numpy_state_of_either_numpy_is_read_without_trust(module: str) -> None:
    """NumPy 1 and 2 pickle an array under different names of the same function."""
    buffer = io.BytesIO()
    state: Any = np.random.get_state()
    torch.save({"rng": state, "loss": np.float32(0.5)}, buffer)
    found = decode_plain(_renamed(buffer.getvalue(), module), where="x")
    assert found["rng"][0] == "MT19937"
    assert np.array_equal(found["rng"][1], state[1])
    assert found["loss"] == 0.5


def _renamed(data: bytes, module: str) -> bytes:
    """The same file as the NumPy with that module name would have written it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
                    content = content.replace(b"c" + name + b"\n", b"c@\n")
                assert b"c@\n" in content
                content = content.replace(b"c@\n", b"c" + module.encode() + b"\n")
            target.writestr(item.filename, content)
    return out.getvalue()
