"""One load, as every rank runs it: choose, check everything, then change state.

Whatever can be refused is refused before the first change: missing or damaged files, names and
shapes that do not fit, another freeze state, a dataloader position that no rank continues. The
generators are restored last, after the last agreement.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from torch.distributed.checkpoint.metadata import Metadata
from torch.optim import Optimizer

from kempnerforge.checkpoint import layout
from kempnerforge.checkpoint.catalog import plain_stages, read_metadata
from kempnerforge.checkpoint.choosing import Choice, Search, choose
from kempnerforge.checkpoint.collective import Collective
from kempnerforge.checkpoint.errors import (
    CheckpointLoadError,
    CorruptCheckpointError,
    FreezeMismatchError,
    agreed_error,
    describe,
)
from kempnerforge.checkpoint.lock import Unlocked, WriteAccess
from kempnerforge.checkpoint.model_state import (
    Exclusion,
    RestoreTargets,
    mesh_signature,
    plan_restore,
)
from kempnerforge.checkpoint.own_state import OWN_KEY, shared_remainder
from kempnerforge.checkpoint.rank_state import (
    RANK_KEYS,
    Arrangement,
    predecessor,
    rank_part,
    require_redistributable,
)
from kempnerforge.checkpoint.reading import ReadShards, read_shards
from kempnerforge.checkpoint.shards import check_metadata
from kempnerforge.checkpoint.stale import again_if_stale
from kempnerforge.checkpoint.storage import Storage
from kempnerforge.checkpoint.worker import Worker

__all__ = ["LoadJob", "LoadRequest", "Loaded"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The choice may take one round a candidate; work ends before the others' wait for its result does.
_WAIT_SHARE = 0.5
_WORK_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What to load; equal on all ranks."""

    search: Search
    exclude: Exclusion
    freeze_expected: Sequence[Mapping[str, Any]] | None
    ignore_freeze_mismatch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was loaded; model and optimizer have their state already."""

    choice: Choice
    train_state: Mapping[str, Any]
    """As :func:`build_train_state` made it on the rank that this one continues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    directories: tuple[Path, ...]
    metadata: tuple[Metadata, ...]
    targets: RestoreTargets
    train_state: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class LoadJob:
    """One load. ``worker`` stays with the caller."""

    collective: Collective
    storage: Storage
    worker: Worker
    model: nn.Module
    optimizer: Optimizer
    stage: int | None
    request: LoadRequest
    timeout_s: float
    access: WriteAccess = field(default_factory=Unlocked)

    def run(self) -> Loaded | None:
        """Load model and optimizer; hands over the train state without applying it.

        Returns:
            None where nothing was ever saved.
        """
        wait_s = _WAIT_SHARE * self.timeout_s
        choice = choose(
            self.request.search,
            self.collective,
            self.storage,
            worker=self.worker,
            timeout_s=wait_s,
            access=self.access,
        )
        if choice is None:
            return None
        arrangement = self._arrangement(choice)
        # Reading fills buffers of ours only, so one agreement covers both.
        checked, read = self.together(
            lambda: self._check_and_read(choice, arrangement), choice, "reading"
        )
        self.together(lambda: self._restore(checked, read), choice, "restoring")
        return Loaded(choice=choice, train_state=checked.train_state)

    def together(self, call: Callable[[], T], choice: Choice, doing: str) -> T:
        """Run ``call`` on every rank; if it fails on one, all raise that error."""
        result, cause, failure = None, None, None
        try:
            result = self.worker.run(call, timeout_s=_WORK_SHARE * self.timeout_s, doing=doing)
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            cause, failure = error, describe(error, self.collective.rank)
        votes = self.collective.collect(failure, timeout_s=self.timeout_s)
        replies = None
        if votes is not None:
            failures = votes.lost + tuple(vote for vote in votes.values if vote is not None)
            replies = [failures] * self.collective.world_size
        agreed = self.collective.answer(replies, timeout_s=2 * self.timeout_s)
        if agreed:
            raise agreed_error(
                agreed,
                doing=f"{doing} {choice.path}",
                default=CheckpointLoadError,
                step=choice.manifest.step if choice.manifest else None,
                path=str(choice.path),
            ) from cause
        return result  # type: ignore[return-value]  # set unless a failure was agreed on

    def _arrangement(self, choice: Choice) -> Arrangement:
        """How the ranks of this job are arranged. Collective."""
        del choice
        votes = self.collective.collect(self.stage, timeout_s=self.timeout_s)
        replies = None
        if votes is not None:
            replies = [votes.values] * self.collective.world_size
        stages = self.collective.answer(replies, timeout_s=2 * self.timeout_s)
        return Arrangement(stage_of_rank=tuple(stages), meshes=tuple(mesh_signature(self.model)))

    def _check_and_read(
        self, choice: Choice, now: Arrangement
    ) -> tuple[_Checked, tuple[ReadShards, ...]]:
        checked = self._check(choice, now)
        return checked, self._read(checked)

    def _check(self, choice: Choice, now: Arrangement) -> _Checked:
        self._check_freeze(choice)
        directories = self._directories(choice)
        metadata = []
        for directory in directories:
            file = directory / layout.SHARD_METADATA
            found = self.request.search.trust.metadata(self.storage.read(file), where=str(file))
            check_metadata(directory, found)
            metadata.append(found)
        train_state = self._train_state(choice, now)
        _require_step(choice, train_state)
        own = self._own_optimizer_state(choice, now)
        stages = [directory.name for directory in directories]
        mine = layout.format_stage(self.stage or 0)
        targets = plan_restore(
            self.model,
            self.optimizer,
            metadata,
            own=stages.index(mine) if mine in stages else 0,
            exclude=self.request.exclude,
        )
        targets.own = own
        if self.collective.rank == 0:
            self._warn_of_unused(targets, metadata, train_state)
        return _Checked(
            directories=directories,
            metadata=tuple(metadata),
            targets=targets,
            train_state=train_state,
        )

    def _warn_of_unused(
        self, targets: RestoreTargets, metadata: Sequence[Metadata], state: Mapping[str, Any]
    ) -> None:
        saved = {key for part in metadata for key in part.state_dict_metadata}
        exclude = self.request.exclude
        unknown = exclude.without_effect({*saved, *RANK_KEYS, "scheduler", *state})
        if unknown:
            logger.warning("excluded from loading, but not in the checkpoint: %s", unknown)
        # A stage holds a part of the model, so what it lacks is another stage's.
        unexpected = () if self.stage is not None else targets.unexpected(exclude)
        if unexpected:
            logger.warning(
                "%d values of the checkpoint are not in the model and are not loaded: %s",
                len(unexpected),
                ", ".join(unexpected[:5]),
            )

    def _check_freeze(self, choice: Choice) -> None:
        saved = read_metadata(choice.path, self.storage).get("vlm_freeze")
        expected = self.request.freeze_expected
        if saved is None or expected is None:
            return
        differing = _freeze_differences(saved, expected)
        if not differing:
            return
        message = (
            f"{choice.path} was written with another freeze state: {differing}; change the freeze "
            "configuration, or set ignore_freeze_mismatch"
        )
        if not self.request.ignore_freeze_mismatch:
            raise FreezeMismatchError(message, path=str(choice.path))
        logger.warning("loading although %s", message)

    def _directories(self, choice: Choice) -> tuple[Path, ...]:
        """Shard directories: the checkpoint itself, or one a stage."""
        stages = (
            choice.manifest.stages if choice.manifest else plain_stages(choice.path, self.storage)
        )
        if not stages:
            return (choice.path,)
        return tuple(choice.path / layout.format_stage(stage) for stage in stages)

    def _train_state(self, choice: Choice, now: Arrangement) -> Mapping[str, Any]:
        state = self._decode(choice.path / layout.TRAIN_STATE)
        wanted = [key for key in RANK_KEYS if not self.request.exclude.covers(key)]
        common = {key: value for key, value in state.items() if key not in RANK_KEYS}
        if choice.manifest is None:
            return {**common, **{key: state[key] for key in wanted if key in state}}
        then = Arrangement.from_json(choice.manifest.layout)
        source = predecessor(self.collective.rank, now, then)
        if source is None:
            require_redistributable(rank_part(state), now, then, wanted=wanted)
            logger.warning("ranks are arranged differently; generators stay as they were seeded")
            return common
        own = self._decode(choice.path / layout.format_rank_file(source))
        return {**common, **{key: own[key] for key in wanted if key in own}}

    def _own_optimizer_state(self, choice: Choice, now: Arrangement) -> Mapping[str, Any]:
        """Of the same rank in the same arrangement; else what stands for all ranks."""
        exclude = self.request.exclude
        if choice.manifest is None or exclude.covers("optimizer"):
            return {}
        same = now == Arrangement.from_json(choice.manifest.layout)
        file = layout.format_rank_file(self.collective.rank if same else 0)
        saved = self._decode(choice.path / file).get(OWN_KEY, {})
        wanted = {key: saved[key] for key in saved if not exclude.covers(f"optimizer.{key}")}
        return wanted if same else shared_remainder(wanted, path=str(choice.path))

    def _decode(self, path: Path) -> dict[str, Any]:
        found = self.request.search.trust.values(self.storage.read(path), where=str(path))
        if not isinstance(found, dict):
            raise CorruptCheckpointError(f"{path}: holds no train state", path=str(path))
        return found

    def _read(self, checked: _Checked) -> tuple[ReadShards, ...]:
        found = []
        for position, directory in enumerate(checked.directories):
            read = partial(
                read_shards,
                directory,
                checked.metadata[position],
                checked.targets.reads[position],
                live=checked.targets.live,
                decode=self.request.search.trust.values,
            )
            found.append(again_if_stale(read, directory))
        return tuple(found)

    def _restore(self, checked: _Checked, read: tuple[ReadShards, ...]) -> None:
        for part in read:
            part.hand_over()
        checked.targets.apply()


def _require_step(choice: Choice, state: Mapping[str, Any]) -> None:
    named = choice.manifest.step if choice.manifest else layout.parse_step(choice.path.name)
    if "step" not in state or (named is not None and state["step"] != named):
        raise CorruptCheckpointError(
            f"{choice.path}: its train state is of step {state.get('step')}, not {named}",
            path=str(choice.path),
        )


def _freeze_differences(
    saved: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> str:
    """Modules that both sides name and that differ, in words; empty where they agree."""
    then = {spec["module"]: bool(spec["frozen"]) for spec in saved}
    now = {spec["module"]: bool(spec["frozen"]) for spec in expected}
    return ", ".join(
        f"{module} saved frozen={then[module]}, expected frozen={now[module]}"
        for module in sorted(then.keys() & now.keys())
        if then[module] != now[module]
    )
