"""One load, as every rank runs it: choose, check everything, then change state.

Whatever can be refused is refused before the first change: missing or damaged files, names and
shapes that do not fit, another freeze state, a dataloader position that no rank continues. The
generators are restored last, after the last agreement.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata
from torch.optim import Optimizer

from kempnerforge.checkpoint.bulk.reading import ReadShards, read_shards
from kempnerforge.checkpoint.errors import (
    CheckpointLoadError,
    CorruptCheckpointError,
    FreezeMismatchError,
    RankFailure,
    Refusal,
    describe,
    of_read,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.shard_metadata import check_metadata
from kempnerforge.checkpoint.protocol.catalog import parse_metadata, plain_stages, read_metadata
from kempnerforge.checkpoint.protocol.choosing import Chooser, Search
from kempnerforge.checkpoint.protocol.proposal import Choice, LoadCandidate
from kempnerforge.checkpoint.protocol.verification import Verifier, VerifyPolicy
from kempnerforge.checkpoint.runtime.collective import Collective, Votes
from kempnerforge.checkpoint.runtime.lock import Unlocked, WriteAccess
from kempnerforge.checkpoint.runtime.stale import again_if_passing
from kempnerforge.checkpoint.runtime.storage import Storage
from kempnerforge.checkpoint.runtime.worker import StartedCall, Worker
from kempnerforge.checkpoint.state import buffers
from kempnerforge.checkpoint.state.checked import RestoreCheck
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.model_state import LiveModel, mesh_signature
from kempnerforge.checkpoint.state.own_values import require_common, saved_keys, values_of_rank
from kempnerforge.checkpoint.state.rank_local import OWN_KEY, shared_remainder
from kempnerforge.checkpoint.state.rank_state import (
    RANK_KEYS,
    Arrangement,
    Positions,
    all_meshes,
    predecessor,
    rank_part,
    require_redistributable,
)
from kempnerforge.checkpoint.state.rank_values import Seen, seen_by
from kempnerforge.checkpoint.state.restore_plan import plan_restore
from kempnerforge.checkpoint.state.restoring import RestoreTargets
from kempnerforge.checkpoint.state.rng import require_same_devices

__all__ = ["LoadJob", "LoadRequest", "Loaded"]

logger = logging.getLogger(__name__)

# The others wait for rank 0 twice as long as it for them, and work ends before either does, so that
# a slow rank says so itself.
_WAIT_SHARE = 0.5
_WORK_SHARE = 0.8
# The other ranks go on meanwhile, and may wait for rank 0 in a save already.
_TIDY_SHARE = 0.1
# Names of values that a rank has no place for, of which a stage may have thousands.
_MOST_TOLD = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The arguments of a load; equal on all ranks."""

    search: Search
    exclude: Exclusion
    freeze_expected: Sequence[Mapping[str, Any]] | None
    ignore_freeze_mismatch: bool
    redistributes: bool
    """Whether the dataloader takes the positions of all saved ranks."""
    check: RestoreCheck = RestoreCheck.sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The outcome of a load; model and optimizer have their state already."""

    choice: Choice
    train_state: Mapping[str, Any]
    """As :func:`build_train_state` made it on the rank that this one continues."""
    not_taken: tuple[str, ...] = ()
    """Flat names of values that no rank's model or optimizer has a place for, the same on all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """All that one rank needs of a checkpoint, read and checked, and nothing of it applied."""

    targets: RestoreTargets
    shards: tuple[ReadShards, ...]
    train_state: Mapping[str, Any]
    buffers: Mapping[str, torch.Tensor]
    """Values of the model that are this rank's own, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restored:
    """The vote of a rank that has its state, or could not take it."""

    failure: RankFailure | None
    not_taken: tuple[str, ...]
    """Names that it has no place for, in order, as many as travel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """Rank 0's answer where all ranks have their state."""

    not_taken: tuple[str, ...]


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

    def run(
        self,
        apply: Callable[[Mapping[str, Any]], None],
        *,
        tidy: Callable[[], None],
        earlier: RankFailure | None = None,
    ) -> Loaded | None:
        """Load model and optimizer.

        Args:
            apply: Applies what it wants of the train state; what it raises on one rank is the error
                of all. Not for the generators: an agreement follows.
            tidy: Called on rank 0 once nothing is read any more, while the ranks agree that all is
                well. What it raises is logged; the load is as good without.
            earlier: What went wrong on this rank before; then no rank loads, and all raise it.

        Returns:
            None where nothing was ever saved.
        """
        chooser = Chooser(
            search=self.request.search,
            collective=self.collective,
            storage=self.storage,
            worker=self.worker,
            timeout_s=_WAIT_SHARE * self.timeout_s,
            access=self.access,
        )
        meshes = mesh_signature(LiveModel(self.model).parameters.values())
        found = chooser.prepare(self._read, told=(self.stage, meshes), earlier=earlier)
        if found is None:
            self._finish_tidying(self._start_tidying(tidy))
            return None
        read = found.result
        agreed = self._together(read, found.choice, apply, tidy)
        self._say_what_is_left(found.choice, agreed.not_taken)
        return Loaded(choice=found.choice, train_state=read.train_state, not_taken=agreed.not_taken)

    def _together(
        self,
        read: _Read,
        choice: Choice,
        apply: Callable[[Mapping[str, Any]], None],
        tidy: Callable[[], None],
    ) -> _Agreed:
        """Restore on every rank; if that fails on one, all raise that error."""
        wait_s = _WAIT_SHARE * self.timeout_s
        doing = f"restoring {choice.path}"
        cause: BaseException | None = None
        failure = None
        try:
            self.worker.run(
                lambda: self._restore(read, apply), timeout_s=_WORK_SHARE * wait_s, doing=doing
            )
        except BaseException as error:  # becomes the error of every rank
            if self.worker.stuck and not isinstance(error, Exception):
                raise  # Ctrl-C, at which nobody wants to wait
            cause, failure = error, describe(error, self.collective.rank)
        tidying = None if failure else self._start_tidying(tidy)
        vote = _Restored(failure=failure, not_taken=self._not_taken(read.targets))
        votes = self.collective.collect(vote, timeout_s=wait_s)
        replies = None
        if votes is not None:
            replies = [_judge(votes, choice, doing)] * self.collective.world_size
        agreed = self.collective.answer(replies, timeout_s=2 * wait_s)
        self._finish_tidying(tidying)
        if cause is not None and not isinstance(cause, Exception):
            raise cause  # SystemExit, say, of which the others have been told
        if isinstance(agreed, Refusal):
            raise agreed.error() from cause
        assert isinstance(agreed, _Agreed)
        return agreed

    def _not_taken(self, targets: RestoreTargets) -> tuple[str, ...]:
        return targets.unexpected(self.request.exclude)[:_MOST_TOLD]

    def _say_what_is_left(self, choice: Choice, names: Sequence[str]) -> None:
        if names and self.collective.rank == 0:
            logger.warning(
                "%d values of the checkpoint %s are not in the model or the optimizer and are not "
                "loaded: %s",
                len(names),
                choice.path,
                ", ".join(names[:5]),
            )

    def _start_tidying(self, tidy: Callable[[], None]) -> StartedCall[None] | None:
        return self.worker.start(tidy) if self.collective.rank == 0 else None

    def _finish_tidying(self, tidying: StartedCall[None] | None) -> None:
        root = self.request.search.root
        try:
            if tidying is not None:
                tidying.result(
                    timeout_s=_TIDY_SHARE * self.timeout_s, doing=f"cleaning up in {root}"
                )
        except Exception as error:  # noqa: BLE001  # the ranks have agreed that all is well
            logger.warning("leftovers in %s stay: %s", root, error)

    def _read(self, candidate: LoadCandidate) -> _Read:
        """Read and check everything; fills buffers of ours only."""
        choice = candidate.choice
        model = LiveModel(self.model)
        now = Arrangement(
            stage_of_rank=tuple(stage for stage, _ in candidate.told),
            meshes=all_meshes(meshes for _, meshes in candidate.told),
        )
        files = Verifier(
            choice.path,
            choice.manifest,
            share=candidate.share,
            full=self.request.search.verify is VerifyPolicy.full,
            storage=self.storage,
        )
        stages = self._stages(choice)
        same = choice.manifest is not None and now == Arrangement.from_json(choice.manifest.layout)
        seen = []
        for stage in stages:
            name = _within(stage, layout.SHARD_METADATA)
            where = str(choice.path / name)
            found = self.request.search.trust.metadata(files.read(name), where=where)
            check_metadata(choice.path / _within(stage, ""), found, size_of=self.storage.size)
            seen.append(seen_by(found, self.collective.rank if same else None))
        train_state, own, keys = self._train_state(choice, files, now, model)
        _require_step(choice, train_state)
        require_same_devices(train_state.get("rng", {}))
        targets = plan_restore(
            model,
            self.optimizer,
            seen,
            own=stages.index(self.stage or 0) if (self.stage or 0) in stages else 0,
            exclude=self.request.exclude,
        )
        targets.own = own
        own_buffers = self._own_buffers(choice, files, now, model)
        if self.collective.rank == 0:
            self._warn_of_unused(seen, keys)
            _warn_of_conversions(targets.converted)
        shards = tuple(
            self._read_shards(choice.path, stage, files, part.metadata, targets, position)
            for position, (stage, part) in enumerate(zip(stages, seen, strict=True))
        )
        files.finish()
        # Last, because damage of this checkpoint says more than its settings do.
        targets.decide()
        self._check_freeze(choice, files)
        return _Read(targets=targets, shards=shards, train_state=train_state, buffers=own_buffers)

    def _read_shards(
        self,
        path: Path,
        stage: int | None,
        files: Verifier,
        metadata: Metadata,
        targets: RestoreTargets,
        position: int,
    ) -> ReadShards:
        directory = path / _within(stage, "")
        read = partial(
            read_shards,
            directory,
            metadata,
            targets.reads[position],
            live=targets.live,
            decode=self.request.search.trust.values,
            answerable=files.below(_within(stage, "")),
        )
        try:
            return again_if_passing(read, directory)
        except (OSError, MemoryError) as error:
            where = getattr(error, "filename", None) or directory
            raise of_read(error, where, path=path) from error

    def _warn_of_unused(self, seen: Sequence[Seen], keys: Collection[str]) -> None:
        common = sorted(key for part in seen for key in part.common)
        if common:
            logger.warning(
                "ranks are arranged differently; of %d values that differed by rank all get the "
                "first rank's, among them %s",
                len(common),
                common[0],
            )
        saved = {key for part in seen for key in part.metadata.state_dict_metadata}
        exclude = self.request.exclude
        unknown = exclude.without_effect({*saved, *RANK_KEYS, "scheduler", *keys})
        if unknown:
            logger.warning("excluded from loading, but not in the checkpoint: %s", unknown)

    def _check_freeze(self, choice: Choice, files: Verifier) -> None:
        expected = self.request.freeze_expected
        if expected is None:
            return
        if choice.manifest is None:
            metadata = read_metadata(choice.path, self.storage)
        else:
            metadata = parse_metadata(files.read(layout.METADATA))
        saved = metadata.get("vlm_freeze")
        if saved is None:
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

    def _stages(self, choice: Choice) -> tuple[int | None, ...]:
        """Stages that have shards of their own; only None where there are no stages."""
        stages = (
            choice.manifest.stages if choice.manifest else plain_stages(choice.path, self.storage)
        )
        return tuple(stages) if stages else (None,)

    def _train_state(
        self, choice: Choice, files: Verifier, now: Arrangement, model: LiveModel
    ) -> tuple[Mapping[str, Any], Mapping[str, Any], frozenset[str]]:
        """The train state for this rank, the optimizer state that is its own, and what was saved.

        The last are the keys of the train state, those that are not wanted among them.
        """
        state = self._decode(choice, files, layout.TRAIN_STATE)
        exclude = self.request.exclude
        wanted = [key for key in RANK_KEYS if not exclude.covers(key)]
        common = {
            key: value
            for key, value in state.items()
            if key not in RANK_KEYS and not exclude.covers(key)
        }
        if choice.manifest is None:
            mine = {key: state[key] for key in wanted if key in state}
            return {**common, **mine}, {}, frozenset(state)
        then = Arrangement.from_json(choice.manifest.layout)
        source = predecessor(self.collective.rank, now, then)
        same = now == then
        if source is None:
            if self.request.redistributes and "dataloader" in wanted:
                common = {**common, **self._positions(choice, files, then)}
            else:
                require_redistributable(rank_part(state), now, then, wanted=wanted)
            logger.warning("ranks are arranged differently; generators stay as they were seeded")
        mine = (
            {} if source is None else self._decode(choice, files, layout.format_rank_file(source))
        )
        first = mine if same else self._decode(choice, files, layout.format_rank_file(0))
        if same:
            common.update(values_of_rank(mine, model.module, exclude))
        else:
            require_common(first, exclude, path=str(choice.path))
        own = self._own_optimizer_state(choice, first, same=same)
        keys = frozenset(state) | saved_keys(first)
        return {**common, **{key: mine[key] for key in wanted if key in mine}}, own, keys

    def _positions(self, choice: Choice, files: Verifier, then: Arrangement) -> dict[str, Any]:
        """Where the dataloaders of all saved ranks were; one small file a rank is read."""
        states = [
            self._decode(choice, files, layout.format_rank_file(rank)) for rank in then.ranks_of(0)
        ]
        if not all("dataloader" in state for state in states):
            return {}
        return {"dataloader": Positions(tuple(state["dataloader"] for state in states))}

    def _own_optimizer_state(
        self, choice: Choice, rank_state: Mapping[str, Any], *, same: bool
    ) -> Mapping[str, Any]:
        """Of the same rank in the same arrangement; else what stands for all ranks."""
        exclude = self.request.exclude
        if exclude.covers("optimizer"):
            return {}
        saved = rank_state.get(OWN_KEY, {})
        wanted = {key: saved[key] for key in saved if not exclude.covers(f"optimizer.{key}")}
        return wanted if same else shared_remainder(wanted, path=str(choice.path))

    def _own_buffers(
        self, choice: Choice, files: Verifier, now: Arrangement, model: LiveModel
    ) -> Mapping[str, torch.Tensor]:
        """Buffers that differed by rank, for the same rank in the same arrangement."""
        name = layout.format_buffers_file(self.collective.rank)
        if choice.manifest is None or name not in choice.manifest.files:
            return {}
        if Arrangement.from_json(choice.manifest.layout) != now:
            logger.warning("ranks are arranged differently; all get one rank's buffers")
            return {}
        saved = self._decode(choice, files, name)
        return buffers.match(model, saved, self.request.exclude)

    def _decode(self, choice: Choice, files: Verifier, name: str) -> dict[str, Any]:
        path = choice.path / name
        found = self.request.search.trust.values(files.read(name), where=str(path))
        if not isinstance(found, dict):
            raise CorruptCheckpointError(f"{path}: holds no train state", path=str(path))
        return found

    def _restore(self, read: _Read, apply: Callable[[Mapping[str, Any]], None]) -> None:
        for part in read.shards:
            part.hand_over()
        read.targets.apply(self.request.check)
        read.targets.apply_own(read.buffers)
        apply(read.train_state)
        read.targets.apply_groups()


def _warn_of_conversions(converted: Sequence[str]) -> None:
    if converted:
        logger.warning(
            "%d values of the checkpoint are converted to the dtype of the model: %s",
            len(converted),
            ", ".join(converted[:5]),
        )


def _judge(votes: Votes, choice: Choice, doing: str) -> Refusal | _Agreed:
    """Rank 0's answer once all ranks have restored their state."""
    failures = votes.failures(_Restored, doing)
    if not failures:
        # What one rank has no place for may be another one's: a stage's, an expert's.
        left = [set(vote.not_taken) for vote in votes.values if isinstance(vote, _Restored)]
        return _Agreed(not_taken=tuple(sorted(set.intersection(*left))))
    return Refusal(
        failures=failures,
        doing=doing,
        default=CheckpointLoadError,
        step=choice.manifest.step if choice.manifest else None,
        path=str(choice.path),
    )


def _within(stage: int | None, name: str) -> str:
    """Path of a file of a stage, relative to the checkpoint."""
    if stage is None:
        return name
    return f"{layout.format_stage(stage)}/{name}"


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
