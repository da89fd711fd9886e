"""Rank functions for tests of several ranks."""

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from kempnerforge.checkpoint import AsyncCheckpointer, CheckpointError
from kempnerforge.checkpoint.protocol import saving
from kempnerforge.checkpoint.runtime.sink import FileSink
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.config.schema import AsyncCheckpointMode
from kempnerforge.resilience.elastic import resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler
from kempnerforge.training.freeze import freeze_params
from tests.checkpoint.telling import await_acknowledged, tell
from tests.checkpoint.training import GlobalOrder, Job, Part


def resume_thrice(rank: int, directory: Path, mode: str) -> dict[str, Any]:
    """Uninterrupted digests of steps 1 to 8 beside those of a run resumed at 2, 4 and 6."""
    home = directory / mode
    straight = Job(home / "straight", rank, seed=1, sharded=True, async_mode=mode)
    expected = straight.train(8)
    found = []
    for start in (0, 2, 4, 6):
        job = Job(home, rank, seed=50 + start, sharded=True, async_mode=mode)
        if start == 0:
            job = Job(home, rank, seed=1, sharded=True, async_mode=mode)
        else:
            path = resolve_resume_path(home / "checkpoints")
            assert path is not None
            assert path.name == f"step_{start}"
            assert job.load(str(path)) == (start, start * 10, {"note": start})
        found += job.train(2)
        job.save(start + 2, note=start + 2)
        job.train(1)  # changes what the background save must have copied already
        job.manager.wait()
    return {"expected": expected, "found": found}


def saving_changes_nothing(rank: int, directory: Path) -> bool:
    job = Job(directory, rank, seed=3, sharded=True)
    other = Job(directory / "other", rank, seed=3, sharded=True)
    same = other.digest() == job.digest()
    job.save(0)
    same &= other.digest() == job.digest()
    flags = [p.requires_grad for p in job.model.parameters()]
    job.train(1)
    other = Job(directory / "other", rank, seed=3, sharded=True)
    same &= other.train(1) == [job.digest()]
    return same and flags == [p.requires_grad for p in job.model.parameters()]


def pipeline_over_shards(rank: int, directory: Path) -> dict[str, Any]:
    """Two stages of two ranks each; resumes once with the same and once with one stage."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "dp"))
    stage, shards = rank // 2, mesh["dp"]

    def make(seed: int) -> Job:
        return Job(
            directory,
            rank,
            seed=seed,
            sharded=True,
            part=Part(layers=range(stage, stage + 1), pp_rank=stage, mesh=shards),
            async_mode="async",
        )

    job = make(1)
    job.train(2)
    job.save(2)
    job.manager.wait()
    weight = job.model.layers[str(stage)].weight
    weights = {
        "layer": weight.full_tensor().tolist(),
        "moments": job.optimizer.state[weight]["exp_avg"].full_tensor().tolist(),
        "position": job.loader.position,
    }
    expected = job.train(2)
    again = make(9)
    loaded = again.load()
    names = sorted(p.name for p in (directory / "checkpoints" / "step_2").iterdir())
    return {
        "loaded": loaded,
        "equal": again.train(2) == expected,
        "names": names,
        **weights,
    }


def load_without_stages(rank: int, directory: Path) -> dict[str, Any]:
    job = Job(directory, rank, seed=5, sharded=True)
    step = job.load()[0]
    layers = [job.model.layers[name].weight.full_tensor().tolist() for name in ("0", "1")]
    moments = [
        job.optimizer.state[job.model.layers[name].weight]["exp_avg"].full_tensor().tolist()
        for name in ("0", "1")
    ]
    return {"step": step, "layers": layers, "moments": moments, "position": job.loader.position}


def exit_with_a_save_under_way(rank: int, directory: Path) -> None:
    job = Job(directory, rank, seed=1, sharded=True, async_mode="async")
    job.train(1)
    job.save(1)


def _full_disk(self: FileSink) -> None:
    self.abandon()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def one_rank_runs_out_of_space(rank: int, directory: Path, mode: str) -> dict[str, Any]:
    """Save 1 works, 2 and 3 fail on rank 1 only, 4 works; errors by step."""
    job = Job(directory / mode, rank, seed=1, sharded=True, async_mode=mode)
    genuine = FileSink.close
    errors: dict[int, str] = {}
    for step in (1, 2, 3, 4, 5):
        job.train(1)
        if rank == 1:
            FileSink.close = _full_disk if step in (2, 3) else genuine  # type: ignore[method-assign]
        try:
            job.save(step)
            job.manager.wait()
        except CheckpointError as error:
            errors[step] = f"{type(error).__name__}: {error}"
    dist.barrier()
    names = sorted(p.name for p in (directory / mode / "checkpoints").iterdir())
    return {"errors": errors, "names": names, "loaded": job.load()[0]}


def save_and_load_with_another_default_device(rank: int, directory: Path) -> dict[str, Any]:
    """As a program does that calls ``torch.set_default_device`` once and means its GPU.

    Replicas, because torch itself cannot place a sharded tensor with this stand-in for a GPU.
    """
    found = {}
    for mode in AsyncCheckpointMode:
        job = Job(directory / mode, rank, seed=1, async_mode=mode)
        job.model.seen += rank  # a buffer of each rank's own
        before = job.digest()
        handler = ShutdownHandler(timeout_sec=60)
        handler.register()
        with torch.device("meta"):
            job.save(1)
            job.manager.wait()
            asked = handler.should_shutdown()
        job.train(1)
        with torch.device("meta"):
            step = job.load()[0]
        handler.finish()
        found[mode.value] = (asked, step, job.digest() == before)
    return found


def error_reaches_the_next_save(rank: int, directory: Path) -> dict[str, Any]:
    """A background failure, then a save without wait() in between."""
    job = Job(directory, rank, seed=1, sharded=True, async_mode="async")
    genuine = FileSink.close
    if rank == 1:
        FileSink.close = _full_disk  # type: ignore[method-assign]
    job.save(1)
    while job.manager._pending is not None and job.manager._pending.running:
        time.sleep(0.01)
    FileSink.close = genuine  # type: ignore[method-assign]
    raised = ""
    try:
        job.save(2)
    except CheckpointError as error:
        raised = str(error)
    job.manager.wait()
    job.save(3)
    job.manager.wait()
    names = sorted(p.name for p in (directory / "checkpoints").glob("step_*"))
    return {"raised": raised, "names": names}


def a_rank_is_killed(rank: int, directory: Path) -> dict[str, Any]:
    job = Job(directory, rank, seed=1)
    job.save(1)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        job.save(2)
    except CheckpointError as error:
        return {
            "error": f"{type(error).__name__}: {error}",
            "ranks": [failure.rank for failure in error.failures],
            "seconds": time.monotonic() - started,
        }
    return {}


def storage_of_a_rank_hangs(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 1's storage hangs beyond the deadline, then heals."""
    job = Job(directory, rank, seed=1, async_mode="async", commit_timeout_s=60.0)
    healed = threading.Event()
    genuine, share = LocalStorage.write, saving._WRITE_SHARE

    def hang(self: LocalStorage, path: Path, data: bytes) -> Any:
        healed.wait(60)
        return genuine(self, path, data)

    if rank == 1:
        LocalStorage.write = hang  # type: ignore[method-assign]
        saving._WRITE_SHARE = 1 / 60  # a second; the others wait for it as long as ever
    job.save(1)
    started = time.monotonic()
    error = ""
    try:
        job.manager.wait()
    except CheckpointError as caught:
        error = f"{type(caught).__name__}: {caught}"
    seconds = time.monotonic() - started
    healed.set()
    LocalStorage.write, saving._WRITE_SHARE = genuine, share  # type: ignore[method-assign]
    job.save(2)
    job.manager.wait()
    names = sorted(p.name for p in (directory / "checkpoints").glob("step_*"))
    return {"error": error, "seconds": seconds, "names": names}


def a_rank_comes_too_late(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 1 enters the save after the others gave up on it; then all save again."""
    job = Job(directory, rank, seed=1, commit_timeout_s=60.0)
    errors, share = [], saving._VOTE_SHARE
    if rank == 0:
        saving._VOTE_SHARE = 3 / 60
    dist.barrier()
    if rank == 1:
        await_acknowledged("0 saved", "2 saved")
    try:
        job.save(1)
    except CheckpointError as error:
        errors.append(f"{type(error).__name__}: {error}")
    tell(f"{rank} saved")
    saving._VOTE_SHARE = share
    dist.barrier()
    job.save(2)
    names = sorted(p.name for p in (directory / "checkpoints").glob("step_*"))
    return {"errors": errors, "names": names}


def ranks_save_different_steps(rank: int, directory: Path) -> str:
    job = Job(directory, rank, seed=1)
    try:
        job.save(4 + rank)
    except CheckpointError as error:
        return str(error)
    return ""


def fall_back_from_a_flipped_bit(rank: int, directory: Path) -> dict[str, Any]:
    job = Job(directory, rank, seed=1, sharded=True)
    job.train(1)
    job.save(1)
    job.train(1)
    job.save(2)
    dist.barrier()
    newest = directory / "checkpoints" / "step_2"
    if rank == 0:
        shard = newest / "__1_0.distcp"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    dist.barrier()
    before = job.digest()
    explicit = ""
    try:
        job.load(str(newest))
    except CheckpointError as error:
        explicit = f"{type(error).__name__}: {error}"
    unchanged = before == job.digest()
    resolved = resolve_resume_path(directory / "checkpoints")
    return {
        "explicit": explicit,
        "unchanged": unchanged,
        "resolved": str(resolved),
        "loaded": job.load()[0],
    }


def another_number_of_ranks(rank: int, directory: Path) -> dict[str, Any]:
    job = Job(directory, rank, seed=8, sharded=True)
    error = ""
    try:
        job.load()
    except CheckpointError as caught:
        error = f"{type(caught).__name__}: {caught}"
    step = job.load(exclude_keys=["dataloader"])[0]
    weights = [layer.weight.full_tensor().tolist() for layer in job.model.layers.values()]
    return {"error": error, "step": step, "weights": weights}


def take_samples(
    rank: int, directory: Path, batch: int, steps: int, samples: int
) -> tuple[int, list[int]]:
    """Resume if there is something to resume, take some batches of one order, and save."""
    job = Job(directory, rank, seed=8, sharded=True)
    loader = GlobalOrder(rank, dist.get_world_size(), batch=batch, samples=samples)
    start = job.manager.load(dataloader=loader)[0]
    taken = [sample for _ in range(steps) for sample in loader.next()]
    job.manager.save(start + steps, dataloader=loader)
    return start, taken


def save_once(rank: int, directory: Path) -> dict[str, Any]:
    job = Job(directory, rank, seed=1, sharded=True)
    job.train(2)
    job.save(2)
    weights = [layer.weight.full_tensor().tolist() for layer in job.model.layers.values()]
    return {"weights": weights}


def checkpointer_alone(rank: int, directory: Path) -> dict[str, Any]:
    """AsyncCheckpointer in each mode, read back by stock dcp.load."""
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    found = {}
    for mode in AsyncCheckpointMode:
        saved = distribute_tensor(torch.arange(6.0), mesh, [Shard(0)])
        checkpointer = AsyncCheckpointer(mode)
        checkpointer.save({"x": saved, "note": "n"}, str(directory / mode), dist.group.WORLD)
        with torch.no_grad():
            saved.mul_(0)
        checkpointer.wait()
        state: dict[str, Any] = {"x": DTensor.from_local(torch.zeros(3), mesh, [Shard(0)])}
        load(state, checkpoint_id=str(directory / mode))
        found[str(mode)] = (state["x"].full_tensor().tolist(), checkpointer.is_pending)
    return found


def agree_on_shutdown(rank: int, directory: Path) -> list[bool]:
    """Rank 1 is signalled during step 2; all must answer alike at every step."""
    handler = ShutdownHandler(timeout_sec=60)
    handler.register()
    answers = []
    for step in range(4):
        if rank == 1 and step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        answers.append(handler.should_shutdown())
    handler.finish()
    return answers


def unfreeze_in_the_middle(rank: int, directory: Path) -> dict[str, Any]:
    job = Job(directory, rank, seed=1, sharded=True)

    def weights() -> list[Any]:
        value: list[Any] = job.model.frozen.weight.full_tensor().tolist()
        return value

    start = weights()
    job.train(2)
    frozen = weights()
    flipped = freeze_params(job.model, ["frozen.*"], frozen=False)
    job.train(1)
    gradient = job.model.frozen.weight.grad is not None
    moved = weights()
    refrozen = freeze_params(job.model, ["frozen.*"])
    job.train(1)
    return {
        "stayed": start == frozen,
        "flipped": (flipped, refrozen),
        "gradient": gradient,
        "moved": moved != frozen,
        "stopped": weights() == moved,
        "moments": _moments_survive(job, rank, directory),
    }


def _moments_survive(job: Job, rank: int, directory: Path) -> bool:
    """A module frozen after it had moments keeps them over a resume."""
    job.save(4)
    fresh = Job(directory, rank, seed=77, sharded=True)
    fresh.load()
    return fresh.digest() == job.digest()


def freeze_before_sharding(rank: int, directory: Path) -> bool:
    model = torch.nn.Linear(4, 4)
    freeze_params(model, ["*"])
    fully_shard(model)
    freeze_params(model, ["*"], frozen=False)
    model(torch.ones(1, 4)).sum().backward()
    return model.weight.grad is not None


def _timed_errors(*calls: Any) -> list[tuple[str, float]]:
    found = []
    for call in calls:
        started = time.monotonic()
        try:
            call()
            error = ""
        except CheckpointError as caught:
            error = f"{type(caught).__name__}: {caught}"
        found.append((error, time.monotonic() - started))
    return found


def after_a_death(rank: int, directory: Path, victim: int, mode: str) -> Any:
    """One rank is killed; what the others meet in whatever they do from then on."""
    job = Job(directory, rank, seed=1, async_mode=mode, commit_timeout_s=600.0)
    job.save(1)
    job.manager.wait()
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)

    def save_and_wait() -> None:
        job.save(2)
        job.manager.wait()

    first = _timed_errors(save_and_wait)
    calls = (save_and_wait, job.manager.wait, job.load, save_and_wait)
    return first, _timed_errors(*calls)


def a_death_while_another_hangs(rank: int, directory: Path) -> Any:
    """Rank 1 dies and rank 2 comes too late: new groups would need the dead one."""
    job = Job(directory, rank, seed=1, commit_timeout_s=600.0)
    job.save(1)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 2:
        await_acknowledged("0 saved")
    else:
        saving._VOTE_SHARE = 1 / 600
    first = _timed_errors(lambda: job.save(2))
    tell(f"{rank} saved")
    return first + _timed_errors(lambda: job.save(3), lambda: job.save(3), job.load)


def a_rank_never_comes_back(rank: int, directory: Path, wait_s: float) -> Any:
    """Rank 1 hangs for good, its connections open; new groups never form."""
    job = Job(directory, rank, seed=1, commit_timeout_s=60.0)
    job.save(1)
    if rank == 1:
        await_acknowledged("0 done", "2 done")
        return None
    collective: Any = job.manager._collective
    collective._timeout_s, saving._VOTE_SHARE = wait_s, wait_s / 60
    found = []
    for step in (2, 3, 4):
        tell(f"{rank} at {step}")
        await_acknowledged(
            f"0 at {step}", f"2 at {step}"
        )  # each waits for rank 1, none for the other
        found += _timed_errors(lambda step=step: job.save(step))
    tell(f"{rank} done")
    await_acknowledged("0 done", "2 done")  # one that left first would be named by the other
    return found


def save_after_the_process_group_is_gone(rank: int, directory: Path) -> Any:
    """Training's groups are destroyed while a save is under way, and before another."""
    job = Job(directory, rank, seed=1, async_mode="async")
    job.train(1)
    job.save(1)
    dist.destroy_process_group()
    job.manager.wait()
    job.save(2)
    job.manager.wait()
    return sorted(path.name for path in (directory / "checkpoints").glob("step_*"))
