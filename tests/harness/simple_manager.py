"""A second, independent implementation of the checkpoint API: slow, plain and correct.

Every save is synchronous. All ranks write into one staging directory; once all of them agree that
this worked, rank 0 makes every file and directory durable, renames the directory to `step_N`, swaps
`latest` and prunes. Loading follows `latest`. The judges must never accuse it of anything.

Out of scope: another world on resume, and any fault of the storage beyond an error.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

STAGING = ".staging-step_{step}"
REMOVED = ".removed-step_{step}"
NEW_LATEST = ".latest.new"
RENAME_EXCHANGE = 2
AT_FDCWD = -100


class SimpleManager:
    """Saves and loads; the parameters and methods are those of the documented manager."""

    def __init__(
        self,
        config: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        process_group: dist.ProcessGroup | None = None,
        pp_rank: int | None = None,
    ) -> None:
        self._config, self._model, self._optimizer = config, model, optimizer
        self._group, self._pp_rank = process_group, pp_rank
        self._dir = Path(config.dir)
        self._loader_state: dict[str, Any] | None = None
        self._resumed: Path | None = None
        self._abandoned: dict[str, int] = {}
        if dist.get_rank() == 0:
            self._dir.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self._dir)

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any = None,
        dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        staging = self._dir / STAGING.format(step=step)
        _agree(lambda: _prepare(staging, self._pp_rank))
        _agree(lambda: self._write_shards(staging))
        _agree(lambda: torch.save(_rank_state(dataloader), staging / _rank_file()))
        _agree(
            lambda: self._seal(staging, step, tokens_seen, scheduler, extra or {}),
            only_first=True,
        )
        _agree(lambda: self._publish(staging, step), only_first=True)

    def wait(self) -> None:
        """Nothing is ever pending."""

    def flush_pending_save(self) -> None:
        """Nothing is ever pending."""

    def peek_saved_step(self, path: str | None = None) -> int | None:
        found = Path(path) if path is not None else self._newest()
        try:
            step = json.loads((found / "metadata.json").read_text())["step"] if found else None
        except (OSError, ValueError):
            return None
        return step if isinstance(step, int) else None

    def load(
        self,
        path: str | None = None,
        scheduler: Any = None,
        dataloader: Any = None,
        exclude_keys: list[str] | None = None,
        vlm_freeze_expected: list[dict[str, Any]] | None = None,
    ) -> tuple[int, int, dict[str, Any]]:
        chosen: list[Any] = [path if path is not None else self._newest()]
        dist.broadcast_object_list(chosen, src=0)
        if chosen[0] is None:
            raise FileNotFoundError(f"no checkpoint in {self._dir}")
        source = Path(chosen[0]).resolve()
        state, mine = self._read_states(source)
        _check_freeze(state["extra"].get("vlm_freeze"), vlm_freeze_expected)
        self._read_shards(source)
        for group, saved in zip(self._optimizer.param_groups, state["groups"], strict=True):
            group.update(saved)
        if scheduler is not None:
            scheduler.load_state_dict(state["scheduler"])
        self._loader_state, self._resumed = mine["loader"], source
        if dataloader is not None:
            self.apply_dataloader_state(dataloader)
        _set_generators(mine["generators"])
        return state["step"], state["tokens_seen"], state["extra"]

    def _read_states(self, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state that all ranks share, and that of this rank."""
        shared = torch.load(source / "train_state.pt", weights_only=True)
        return shared, torch.load(source / _rank_file(), weights_only=True)

    def apply_dataloader_state(self, dataloader: Any) -> None:
        if self._loader_state is not None and hasattr(dataloader, "load_state_dict"):
            dataloader.load_state_dict(self._loader_state)
        self._loader_state = None

    def _newest(self) -> Path | None:
        found = resolve_resume_path(str(self._dir))
        return None if found is None else Path(found)

    def _place(self, directory: Path) -> Path:
        return directory if self._pp_rank is None else directory / f"pp{self._pp_rank}"

    def _write_shards(self, staging: Path) -> None:
        writer = FileSystemWriter(self._place(staging))
        dcp_save(self._tensors(), storage_writer=writer, process_group=self._group)

    def _tensors(self) -> dict[str, Any]:
        tensors = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        for name, param in self._model.named_parameters():
            for key, value in self._optimizer.state.get(param, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def _read_shards(self, source: Path) -> None:
        reader = FileSystemReader(self._place(source))
        saved = reader.read_metadata().state_dict_metadata
        tensors = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        self._optimizer.state.clear()
        for name, param in self._model.named_parameters():
            prefix = f"optimizer.{name}."
            keys = [key.removeprefix(prefix) for key in saved if key.startswith(prefix)]
            for key in keys:
                like = torch.zeros(()) if key == "step" else torch.zeros_like(param).detach()
                self._optimizer.state[param][key] = tensors[prefix + key] = like
        dcp_load(tensors, storage_reader=reader, process_group=self._group)

    def _shared_state(
        self, step: int, tokens_seen: int, scheduler: Any, extra: dict[str, Any]
    ) -> dict[str, Any]:
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self._optimizer.param_groups
        ]
        return {
            "step": step,
            "tokens_seen": tokens_seen,
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "groups": groups,
            "extra": extra,
        }

    def _seal(
        self, staging: Path, step: int, tokens_seen: int, scheduler: Any, extra: dict[str, Any]
    ) -> None:
        state = self._shared_state(step, tokens_seen, scheduler, extra)
        torch.save(state, staging / "train_state.pt")
        orders = {path.name: _order(path) for path in _committed(self._dir)}
        if self._resumed is not None:
            since = orders.get(self._resumed.name, 0)
            self._abandoned = {name: order for name, order in orders.items() if order > since}
            self._resumed = None
        order = 1 + max(orders.values(), default=0)
        metadata = {"step": step, "tokens_seen": tokens_seen, "order": order}
        if "vlm_freeze" in extra:
            metadata["vlm_freeze"] = extra["vlm_freeze"]
        (staging / "metadata.json").write_text(json.dumps(metadata))
        _sync_tree(staging)

    def _publish(self, staging: Path, step: int) -> None:
        final = self._dir / f"step_{step}"
        if final.exists():
            _exchange(staging, final)
        else:
            staging.rename(final)
        _sync(self._dir)
        link = self._dir / NEW_LATEST
        link.symlink_to(final.name)
        link.rename(self._dir / "latest")
        _sync(self._dir)
        _remove_leftovers(self._dir)
        self._prune(final)

    def _prune(self, newest: Path) -> None:
        keep = self._config.keep_last_n
        if keep <= 0:
            return
        there = [path for path in _committed(self._dir) if path != newest]
        abandoned = [path for path in there if self._abandoned.get(path.name) == _order(path)]
        counted = [
            path
            for path in there
            if path not in abandoned and not self._config.is_dynamic_milestone(_step(path))
        ]
        counted.sort(key=_order)
        # `newest` is one of those kept, unless it is a milestone and counts for nothing.
        room = keep if self._config.is_dynamic_milestone(_step(newest)) else keep - 1
        for path in abandoned + counted[: max(0, len(counted) - room)]:
            victim = self._dir / REMOVED.format(step=_step(path))
            path.rename(victim)
            _sync(self._dir)
            shutil.rmtree(victim)
        _sync(self._dir)


class ShutdownHandler:
    """Notes SIGTERM and SIGUSR1; all ranks learn of it at the same step."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def register(self) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self._asked = True

    def should_shutdown(self) -> bool:
        asked = torch.tensor([int(self._asked)])
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())

    def finish(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def resolve_resume_path(directory: str) -> str | None:
    """What `latest` names, or else the checkpoint that was committed last."""
    latest = Path(directory) / "latest"
    if latest.is_dir():
        return str(latest.resolve())
    committed = sorted(_committed(Path(directory)), key=_order)
    return str(committed[-1]) if committed else None


def _agree(
    work: Callable[[], None], group: dist.ProcessGroup | None = None, *, only_first: bool = False
) -> None:
    """Do a part of a save, on rank 0 alone or on all; a failure of one is raised by all."""
    problem: str | None = None
    if dist.get_rank() == 0 or not only_first:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it becomes an error of every rank
            problem = f"rank {dist.get_rank()}: {type(error).__name__}: {error}"
    problems: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem, group=group)
    failed = [text for text in problems if text is not None]
    if failed:
        raise RuntimeError(f"the checkpoint was not saved: {'; '.join(failed)}")


def _prepare(staging: Path, pp_rank: int | None, group: dist.ProcessGroup | None = None) -> None:
    if dist.get_rank() == 0 and staging.exists():
        shutil.rmtree(staging)
    dist.barrier(group)
    place = staging if pp_rank is None else staging / f"pp{pp_rank}"
    place.mkdir(parents=True, exist_ok=True)


def _rank_file() -> str:
    return f"rank_state_{dist.get_rank()}.pt"


def _rank_state(dataloader: Any) -> dict[str, Any]:
    return {
        "loader": None if dataloader is None else dataloader.state_dict(),
        "generators": _get_generators(),
    }


def _get_generators() -> dict[str, Any]:
    state: Any = np.random.get_state()
    kind, key, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (str(kind), key.tolist(), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _has_cuda() else [],
    }


def _has_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _set_generators(saved: dict[str, Any]) -> None:
    kind, key, position, has_gauss, gauss = saved["numpy"]
    random.setstate(saved["python"])
    np.random.set_state((kind, np.array(key, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])


def _check_freeze(
    saved: list[dict[str, Any]] | None, expected: list[dict[str, Any]] | None
) -> None:
    if saved is None or expected is None:
        return
    before = {one["module"]: one["frozen"] for one in saved}
    now = {one["module"]: one["frozen"] for one in expected}
    differing = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
    if differing:
        raise ValueError(f"saved with another freeze state of {', '.join(differing)}")


def _committed(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir() if directory.is_dir() else ():
        number = path.name.removeprefix("step_")
        if path.name.startswith("step_") and number.isdecimal() and not path.is_symlink():
            yield path


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _order(path: Path) -> int:
    return int(json.loads((path / "metadata.json").read_text()).get("order", 0))


def _remove_leftovers(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name == NEW_LATEST:
            path.unlink()
        elif path.name.startswith((".staging-", ".removed-")):
            shutil.rmtree(path)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2", str(one))


def _sync_tree(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            _sync_tree(path)
        else:
            _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
