"""The manager in a single process."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from kempnerforge.checkpoint import (
    CheckpointError,
    CheckpointManager,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    FreezeMismatchError,
    NoUsableCheckpointError,
    StateMismatchError,
)
from kempnerforge.config.schema import DynamicCheckpointWindow
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.training import Counter, Job, Part


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def new(directory: Path, seed: int = 1, **options: Any) -> Job:
    return Job(directory, 0, seed=seed, **options)


def test_a_directory_without_checkpoints_is_a_clean_start(tmp_path: Path) -> None:
    job = new(tmp_path)
    assert job.load() == (0, 0, {})
    assert resolve_resume_path(tmp_path / "checkpoints") is None
    assert job.manager.peek_saved_step() is None


def test_an_abandoned_first_save_is_a_clean_start_and_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".staging-step_4-00c0ffee00c0ffee" / "ranks").mkdir(parents=True)
    assert resolve_resume_path(tmp_path / "checkpoints") is None
    assert new(tmp_path).load() == (0, 0, {})
    assert names(tmp_path) == []


def test_foreign_names_are_left_alone(tmp_path: Path) -> None:
    foreign = [".staging-mine", "step_7_old", "step_x", "notes.txt", ".trash-step_1-xyz"]
    for name in foreign:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    job = new(tmp_path, keep_last_n=1)
    job.save(1)
    job.save(2)
    assert names(tmp_path) == sorted([*foreign, "latest", "step_2"])


def test_metadata_and_latest_are_as_documented(tmp_path: Path) -> None:
    job = new(tmp_path)
    freeze = [{"module": "adapter", "frozen": True}]
    job.save(3, vlm_freeze=freeze, phase=2)
    root = tmp_path / "checkpoints"
    assert (root / "latest").readlink() == Path("step_3")
    metadata = json.loads((root / "step_3" / "metadata.json").read_text())
    metadata.pop("manifest")
    assert metadata == {"step": 3, "tokens_seen": 30, "vlm_freeze": freeze}
    assert job.manager.peek_saved_step() == 3
    assert job.load() == (3, 30, {"vlm_freeze": freeze, "phase": 2})


def test_latest_survives_moving_the_directory(tmp_path: Path) -> None:
    new(tmp_path / "a").save(1)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert new(tmp_path / "b").load()[0] == 1


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_a_relative_directory_stays_where_it_was_when_the_program_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    job = new(Path(), async_mode=mode)
    path = resolve_resume_path("checkpoints")
    job.save(1)
    monkeypatch.chdir(elsewhere)
    job.save(2)
    job.manager.wait()
    assert path is None
    assert job.load()[0] == 2
    assert names(tmp_path) == ["latest", "step_1", "step_2"]
    assert list(elsewhere.iterdir()) == []


def test_milestones_stay(tmp_path: Path) -> None:
    window = DynamicCheckpointWindow(start=0, stop=2)
    job = new(tmp_path, keep_last_n=1, dyn_ckpt_window=window)
    for step in range(1, 6):
        job.save(step)
    assert names(tmp_path) == ["latest", "step_1", "step_2", "step_5"]


@pytest.mark.parametrize("exchange", [True, False])
def test_saving_an_existing_step_replaces_it(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(
            "kempnerforge.checkpoint.runtime.storage.LocalStorage.exchange", lambda *_: False
        )
    job = new(tmp_path)
    job.save(1, version=1)
    job.save(1, version=2)
    assert job.load() == (1, 10, {"version": 2})
    assert names(tmp_path) == ["latest", "step_1"]


def test_a_version_set_aside_by_a_dead_run_is_found_again(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    new(tmp_path).save(1, version=1)
    (root / "step_1").rename(root / ".replaced-step_1-00c0ffee00c0ffee")
    assert resolve_resume_path(root) == root / "step_1"
    assert new(tmp_path).load() == (1, 10, {"version": 1})


def test_only_broken_checkpoints_are_an_error_and_no_silent_restart(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    (tmp_path / "checkpoints" / "step_1" / "train_state.pt").unlink()
    with pytest.raises(NoUsableCheckpointError, match=r"train_state\.pt: No such file"):
        job.load()
    with pytest.raises(NoUsableCheckpointError):
        resolve_resume_path(tmp_path / "checkpoints")


def test_an_incomplete_directory_of_another_program_is_passed_over(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    root = tmp_path / "checkpoints"
    (root / "step_20").mkdir()
    (root / "step_20" / "__0_0.distcp").write_bytes(b"half")
    (root / "latest").unlink()
    (root / "latest").symlink_to("step_20")
    assert resolve_resume_path(root) == root / "step_1"
    assert job.load()[0] == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_damaged_checkpoint_of_another_program_is_passed_over(tmp_path: Path) -> None:
    job = new(tmp_path)
    for step in (10, 20):
        path = tmp_path / "checkpoints" / f"step_{step}"
        dcp_save({"model": job.model.state_dict()}, checkpoint_id=str(path))
        torch.save({"step": step}, path / "train_state.pt")
        (path / "metadata.json").write_text(json.dumps({"step": step}))
    shards = path / "__0_0.distcp"
    shards.write_bytes(shards.read_bytes().replace(b"PK", b"KP"))
    assert job.load()[0] == 10


@pytest.mark.parametrize("latest", ["dangling", "loop", "absent", "directory"])
def test_a_strange_latest_does_not_hide_the_newest_checkpoint(tmp_path: Path, latest: str) -> None:
    job = new(tmp_path)
    job.save(1)
    job.save(2)
    link = tmp_path / "checkpoints" / "latest"
    link.unlink()
    if latest == "dangling":
        link.symlink_to("step_9")
    elif latest == "loop":
        link.symlink_to("latest")
    elif latest == "directory":
        link.mkdir()
    assert resolve_resume_path(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step_2"
    assert job.load()[0] == 2
    job.save(3)
    assert link.readlink() == Path("step_3")


def test_latest_repointed_by_an_operator_is_obeyed(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    job.save(2)
    link = tmp_path / "checkpoints" / "latest"
    link.unlink()
    link.symlink_to("step_1")
    assert resolve_resume_path(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step_1"
    assert job.load()[0] == 1


def test_a_missing_explicit_path_fails_loudly(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    with pytest.raises(CheckpointNotFoundError, match="step_9 does not exist"):
        job.load(str(tmp_path / "checkpoints" / "step_9"))
    with pytest.raises(FileNotFoundError):
        new(tmp_path, load_path=str(tmp_path / "typo")).load()


@pytest.mark.parametrize(
    "name",
    [
        "__0_0.distcp",
        ".metadata",
        "train_state.pt",
        "metadata.json",
        "manifest.json",
        "ranks/rank_00000.pt",
    ],
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_to_any_file_is_found_before_anything_changes(
    tmp_path: Path, name: str, damage: str
) -> None:
    job = new(tmp_path)
    job.train(1)
    job.save(1)
    file = tmp_path / "checkpoints" / "step_1" / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(data[:-1])
    else:
        file.unlink()
    other = new(tmp_path, seed=2)
    before = other.digest()
    with pytest.raises(CorruptCheckpointError):
        other.load(str(tmp_path / "checkpoints" / "step_1"))
    assert other.digest() == before


def test_a_shard_of_another_save_is_refused(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    job.train(1)
    job.save(2)
    root = tmp_path / "checkpoints"
    shutil.copy(root / "step_1" / "__0_0.distcp", root / "step_2" / "__0_0.distcp")
    with pytest.raises(CorruptCheckpointError, match=r"__0_0\.distcp"):
        job.load(str(root / "step_2"))
    assert job.load()[0] == 1


def test_freeze_mismatch_is_refused_before_anything_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = new(tmp_path)
    job.train(1)
    saved = [{"module": "adapter", "frozen": True}, {"module": "transformer", "frozen": False}]
    job.save(1, vlm_freeze=saved)
    expected = [{"module": "adapter", "frozen": False}, {"module": "vision", "frozen": True}]
    other = new(tmp_path, seed=2)
    before = other.digest()
    with pytest.raises(ValueError, match="adapter saved frozen=True, expected frozen=False") as e:
        other.load(vlm_freeze_expected=expected)
    assert isinstance(e.value, FreezeMismatchError)
    assert other.digest() == before
    lenient = new(tmp_path, seed=2, ignore_freeze_mismatch=True)
    with caplog.at_level(logging.WARNING):
        assert lenient.load(vlm_freeze_expected=expected)[0] == 1
    assert "another freeze state" in caplog.text


def test_freeze_state_is_compared_on_shared_modules_only(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1, vlm_freeze=[{"module": "adapter", "frozen": True}])
    assert job.load(vlm_freeze_expected=[{"module": "vision", "frozen": True}])[0] == 1


def test_excluded_state_is_left_alone(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.train(2)
    job.save(2)
    fresh = new(tmp_path, seed=2, exclude_from_loading=["optimizer"])
    rng = torch.get_rng_state()
    fresh.load(exclude_keys=["scheduler", "rng", "dataloader"])
    assert not fresh.optimizer.state
    assert fresh.scheduler.last_epoch == 0
    assert fresh.loader.position == 0
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(fresh.model.frozen.weight, job.model.frozen.weight)


def test_a_dataloader_built_after_load_gets_its_state_once(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.train(3)
    job.save(3)
    again = new(tmp_path, seed=2)
    again.manager.load(scheduler=again.scheduler)
    loader, second = Counter(), Counter()
    again.manager.apply_dataloader_state(loader)
    again.manager.apply_dataloader_state(second)
    assert (loader.position, second.position) == (3, 0)


def test_a_model_of_another_shape_is_refused_before_anything_changes(tmp_path: Path) -> None:
    new(tmp_path).save(1)
    other = new(tmp_path, part=Part(layers=range(3)))
    with pytest.raises(StateMismatchError, match=r"model\.layers\.2\.weight"):
        other.load()


def test_a_checkpoint_without_manifest_with_numpy_state_loads(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.train(2)
    plain = tmp_path / "plain" / "checkpoints" / "step_2"
    from kempnerforge.checkpoint.state.model_state import LiveModel, assemble

    with pytest.warns(UserWarning, match="single process"):
        dcp_save(assemble(LiveModel(job.model), job.optimizer).shared, checkpoint_id=str(plain))
    state = {
        "step": 2,
        "tokens_seen": 20,
        "scheduler": job.scheduler.state_dict(),
        "dataloader": job.loader.state_dict(),
        "rng": {"numpy": np.random.get_state(), "torch": torch.get_rng_state()},
        "phase": "old",
    }
    torch.save(state, plain / "train_state.pt")
    (plain / "metadata.json").write_text('{"step": 2, "tokens_seen": 20}')
    other = new(tmp_path / "plain", seed=2)
    assert other.manager.peek_saved_step() == 2
    assert other.load() == (2, 20, {"phase": "old"})
    assert torch.equal(other.model.layers["0"].weight, job.model.layers["0"].weight)
    moments = other.optimizer.state[other.model.layers["0"].weight]
    assert torch.equal(
        moments["exp_avg"], job.optimizer.state[job.model.layers["0"].weight]["exp_avg"]
    )
    (plain / "train_state.pt").unlink()
    with pytest.raises(NoUsableCheckpointError, match=r"train_state\.pt is missing"):
        other.load()


def test_any_object_with_the_documented_fields_is_a_config(tmp_path: Path) -> None:
    config = SimpleNamespace(
        dir=str(tmp_path),
        interval=1,
        dyn_ckpt_window=None,
        async_mode="async",
        keep_last_n=3,
        load_path=None,
        export_dtype="bfloat16",
        exclude_from_loading=[],
        ignore_freeze_mismatch=False,
        should_save=lambda step: True,
        is_dynamic_milestone=lambda step: False,
    )
    model = torch.nn.Linear(2, 2)
    manager = CheckpointManager(config, model, torch.optim.SGD(model.parameters(), lr=0.1))
    manager.save(1)
    manager.flush_pending_save()
    assert manager.load() == (1, 0, {})


def test_a_background_save_is_published_without_another_call(tmp_path: Path) -> None:
    job = new(tmp_path, async_mode="async")
    job.save(1)
    assert job.manager._pending is not None
    job.manager._pending._thread.join(30)
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")
    job.manager.wait()


def test_state_that_cannot_be_loaded_back_fails_the_save(tmp_path: Path) -> None:
    job = new(tmp_path)
    with pytest.raises(CheckpointError, match="'config' in the train state holds an object"):
        job.save(1, config=replace)
    job.save(2)
    assert names(tmp_path) == ["latest", "step_2"]


def test_an_optimizer_of_other_parameters_is_refused(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.manager._optimizer = torch.optim.SGD(torch.nn.Linear(3, 3).parameters(), lr=1.0)
    with pytest.raises(CheckpointError, match="parameters that are not the model's"):
        job.save(1)


def test_a_compiled_model_and_an_eager_one_read_each_other(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.train(1)
    job.save(1)
    other = new(tmp_path, seed=2)
    compiled: Any = torch.compile(other.model, backend="eager")
    manager = CheckpointManager(other.manager._config.given, compiled, other.optimizer)
    manager.load()
    assert torch.equal(other.model.layers["1"].weight, job.model.layers["1"].weight)
    manager.save(2)
    assert new(tmp_path, seed=3).load()[0] == 2


def test_a_save_under_way_is_finished_when_the_interpreter_ends(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from tests.checkpoint.training import Job
job = Job(Path({str(tmp_path)!r}), 0, seed=1, async_mode="async")
job.save(1)
sys.exit(3)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")


FREEZE = [{"module": "adapter", "frozen": True}]
FILES = ("metadata.json", ".metadata", "train_state.pt", "ranks/rank_00000.pt", "__0_0.distcp")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_damage_anywhere_is_damage_and_never_another_fault(
    tmp_path: Path, name: str, place: float
) -> None:
    """A flipped bit may look like another model, other settings or an object; it is none."""
    job = new(tmp_path)
    job.save(1, vlm_freeze=FREEZE)
    job.train(1)
    job.save(2, vlm_freeze=FREEZE)
    file = tmp_path / "checkpoints" / "step_2" / name
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(data)
    assert new(tmp_path, seed=2).load(vlm_freeze_expected=FREEZE)[0] == 1


def test_a_damaged_checkpoint_is_damaged_before_its_settings_matter(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1, vlm_freeze=FREEZE)
    job.save(2, vlm_freeze=[{"module": "adapter", "frozen": False}])
    shard = tmp_path / "checkpoints" / "step_2" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert job.load(vlm_freeze_expected=FREEZE)[0] == 1


def test_a_model_that_does_not_fit_is_no_reason_to_go_back_in_time(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    job.save(2)
    other = new(tmp_path, seed=2)
    other.model.layers["0"] = torch.nn.Linear(6, 7)
    with pytest.raises(StateMismatchError, match="step_2"):
        other.load()


def test_a_file_that_nothing_is_wanted_of_is_verified_too(tmp_path: Path) -> None:
    job = new(tmp_path)
    job.save(1)
    job.save(2)
    shard = tmp_path / "checkpoints" / "step_2" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert job.load(exclude_keys=["model", "optimizer"])[0] == 1


def test_a_checkpoint_that_was_passed_over_pushes_no_sound_one_out(tmp_path: Path) -> None:
    job = new(tmp_path, keep_last_n=2)
    job.save(1)
    job.save(2)
    shard = tmp_path / "checkpoints" / "step_2" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    resumed = new(tmp_path, keep_last_n=2)
    assert resumed.load()[0] == 1
    resumed.save(3)
    assert names(tmp_path) == ["latest", "step_1", "step_3"]
    resumed.save(4)
    assert names(tmp_path) == ["latest", "step_3", "step_4"]
