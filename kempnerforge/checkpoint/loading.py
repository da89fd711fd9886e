"""Loads a checkpoint on every rank: choose, check everything, and only then change state.

Everything that can be refused is refused before the first change: missing or damaged files, names
and shapes that do not fit, another freeze state, a dataloader position that no rank continues. The
generators are restored last, after the last agreement.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.metadata import Metadata
from torch.optim import Optimizer

from kempnerforge.checkpoint.archives.shard_metadata import check_metadata
from kempnerforge.checkpoint.bulk.reading import ReadShards, read_shards
from kempnerforge.checkpoint.bulk.trust import Trust
from kempnerforge.checkpoint.errors import (
    CorruptCheckpointError,
    FreezeMismatchError,
    of_read,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.arrangement import Arrangement, all_meshes
from kempnerforge.checkpoint.protocol.catalog import parse_metadata, plain_stages, read_metadata
from kempnerforge.checkpoint.protocol.choosing import Search
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.loading import Load, Restored
from kempnerforge.checkpoint.protocol.proposal import Choice, LoadCandidate
from kempnerforge.checkpoint.protocol.steps import Steps
from kempnerforge.checkpoint.protocol.verification import Verifier, VerifyPolicy
from kempnerforge.checkpoint.runtime.stale import again_if_passing
from kempnerforge.checkpoint.state import buffers
from kempnerforge.checkpoint.state.checked import RestoreCheck
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.model_state import LiveModel, mesh_signature
from kempnerforge.checkpoint.state.own_values import require_common, saved_keys, values_of_rank
from kempnerforge.checkpoint.state.rank_local import OWN_KEY, shared_remainder
from kempnerforge.checkpoint.state.rank_state import (
    RANK_KEYS,
    Positions,
    predecessor,
    rank_part,
    require_redistributable,
)
from kempnerforge.checkpoint.state.rank_values import Seen, seen_by
from kempnerforge.checkpoint.state.restore_plan import plan_restore
from kempnerforge.checkpoint.state.restoring import RestoreTargets
from kempnerforge.checkpoint.state.rng import require_same_devices

__all__ = ["LoadRequest", "Loaded", "StateLoader", "load_state"]

logger = logging.getLogger(__name__)

# The most names to report of values without a place on a rank; a stage can have thousands.
_MOST_TOLD = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The arguments of a load; equal on all ranks."""

    search: Search
    trust: Trust
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
    """The result of :func:`build_train_state` on the rank that this one continues."""
    not_taken: tuple[str, ...] = ()
    """Flat names of values that fit no rank's model or optimizer; the same on all ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Everything that one rank needs from a checkpoint, read and checked, but not yet applied."""

    targets: RestoreTargets
    shards: tuple[ReadShards, ...]
    train_state: Mapping[str, Any]
    buffers: Mapping[str, torch.Tensor]
    """Rank-local values of the model, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLoader:
    """Reads model, optimizer and train state on one rank, and restores them."""

    runtime: Runtime
    model: nn.Module
    optimizer: Optimizer
    stage: int | None
    request: LoadRequest
    apply: Callable[[Mapping[str, Any]], None]
    """Applies the train state, except the generators. An exception on one rank becomes the error of
    all."""

    def opening(self) -> object:
        meshes = mesh_signature(LiveModel(self.model).parameters.values())
        return self.stage, meshes

    def not_taken(self, prepared: Read) -> tuple[str, ...]:
        return prepared.targets.unexpected(self.request.exclude)[:_MOST_TOLD]

    def restore(self, prepared: Read) -> None:
        for part in prepared.shards:
            part.hand_over()
        prepared.targets.apply(self.request.check)
        prepared.targets.apply_own(prepared.buffers)
        self.apply(prepared.train_state)
        prepared.targets.apply_groups()

    def prepare(self, candidate: LoadCandidate) -> Read:
        """Reads and checks everything; fills only this package's own buffers."""
        choice = candidate.choice
        model = LiveModel(self.model)
        now = Arrangement(
            stage_of_rank=tuple(stage for stage, _ in candidate.openings),
            meshes=all_meshes(meshes for _, meshes in candidate.openings),
        )
        files = Verifier(
            choice.path,
            choice.manifest,
            partition=candidate.partition,
            full=self.request.search.verify is VerifyPolicy.full,
            runtime=self.runtime,
        )
        stages = self._stages(choice)
        same = choice.manifest is not None and now == Arrangement.from_json(choice.manifest.layout)
        seen = []
        for stage in stages:
            name = _within(stage, layout.SHARD_METADATA)
            where = str(choice.path / name)
            found = self.request.trust.metadata(files.read(name), where=where)
            check_metadata(
                choice.path / _within(stage, ""), found, size_of=self.runtime.storage.size
            )
            seen.append(seen_by(found, self.runtime.rank if same else None))
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
        if self.runtime.rank == 0:
            self._warn_of_unused(seen, keys)
            _warn_of_conversions(targets.converted)
        shards = tuple(
            self._read_shards(choice.path, stage, files, part.metadata, targets, position)
            for position, (stage, part) in enumerate(zip(stages, seen, strict=True))
        )
        files.finish()
        # Last, because damage is a more useful error than a difference in settings.
        targets.decide()
        self._check_freeze(choice, files)
        return Read(targets=targets, shards=shards, train_state=train_state, buffers=own_buffers)

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
            decode=self.request.trust.values,
            answerable=files.below(_within(stage, "")),
        )
        try:
            return again_if_passing(read, directory, self.runtime.clock)
        except (OSError, MemoryError) as error:
            where = getattr(error, "filename", None) or directory
            raise of_read(error, where, path=path) from error

    def _warn_of_unused(self, seen: Sequence[Seen], keys: Collection[str]) -> None:
        common = sorted(key for part in seen for key in part.common)
        if common:
            logger.warning(
                "the layout of ranks has changed; %d values differed by rank, and all ranks get "
                "the first rank's, among them %s",
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
            metadata = read_metadata(choice.path, self.runtime.storage)
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
        """Returns the stages that have shards of their own; only None without stages."""
        stages = (
            choice.manifest.stages
            if choice.manifest
            else plain_stages(choice.path, self.runtime.storage)
        )
        return tuple(stages) if stages else (None,)

    def _train_state(
        self, choice: Choice, files: Verifier, now: Arrangement, model: LiveModel
    ) -> tuple[Mapping[str, Any], Mapping[str, Any], frozenset[str]]:
        """Returns the train state for this rank, its own optimizer state, and the saved keys.

        The keys are those of the saved train state, including excluded ones.
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
        source = predecessor(self.runtime.rank, now, then)
        same = now == then
        if source is None:
            if self.request.redistributes and "dataloader" in wanted:
                common = {**common, **self._positions(choice, files, then)}
            else:
                require_redistributable(rank_part(state), now, then, wanted=wanted)
            logger.warning("the layout of ranks has changed; generators stay as they were seeded")
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
        """Reads the dataloader positions of all saved ranks, from one small file per rank."""
        states = [
            self._decode(choice, files, layout.format_rank_file(rank)) for rank in then.ranks_of(0)
        ]
        if not all("dataloader" in state for state in states):
            return {}
        return {"dataloader": Positions(tuple(state["dataloader"] for state in states))}

    def _own_optimizer_state(
        self, choice: Choice, rank_state: Mapping[str, Any], *, same: bool
    ) -> Mapping[str, Any]:
        """Returns the same rank's state in the same layout; otherwise the part valid for all."""
        exclude = self.request.exclude
        if exclude.covers("optimizer"):
            return {}
        saved = rank_state.get(OWN_KEY, {})
        wanted = {key: saved[key] for key in saved if not exclude.covers(f"optimizer.{key}")}
        return wanted if same else shared_remainder(wanted, path=str(choice.path))

    def _own_buffers(
        self, choice: Choice, files: Verifier, now: Arrangement, model: LiveModel
    ) -> Mapping[str, torch.Tensor]:
        """Returns buffers that differed by rank, for the same rank in the same layout."""
        name = layout.format_buffers_file(self.runtime.rank)
        if choice.manifest is None or name not in choice.manifest.files:
            return {}
        if Arrangement.from_json(choice.manifest.layout) != now:
            logger.warning("the layout of ranks has changed; all get one rank's buffers")
            return {}
        saved = self._decode(choice, files, name)
        return buffers.match(model, saved, self.request.exclude)

    def _decode(self, choice: Choice, files: Verifier, name: str) -> dict[str, Any]:
        path = choice.path / name
        found = self.request.trust.values(files.read(name), where=str(path))
        if not isinstance(found, dict):
            raise CorruptCheckpointError(f"{path}: holds no train state", path=str(path))
        return found


def load_state(load: Load[Read], earlier: BaseException | None = None) -> Steps[Loaded | None]:
    """Loads model and optimizer; the caller restores the generators.

    Args:
        load: A load with a :class:`StateLoader`.
        earlier: See :meth:`Load.steps`.

    Returns:
        The outcome, or None if nothing was ever saved.
    """
    found = yield from load.steps(earlier)
    if found is None:
        return None
    if load.runtime.rank == 0:
        _warn_of_unused_values(found)
    return Loaded(
        choice=found.choice,
        train_state=found.prepared.train_state,
        not_taken=found.not_taken,
    )


def _warn_of_conversions(converted: Sequence[str]) -> None:
    if converted:
        logger.warning(
            "%d values of the checkpoint are converted to the dtype of the model: %s",
            len(converted),
            ", ".join(converted[:5]),
        )


def _warn_of_unused_values(found: Restored[Read]) -> None:
    names = found.not_taken
    if names:
        logger.warning(
            "%d values of the checkpoint %s are not in the model or the optimizer and are not "
            "loaded: %s",
            len(names),
            found.choice.path,
            ", ".join(names[:5]),
        )


def _within(stage: int | None, name: str) -> str:
    """Returns the path of a stage's file, relative to the checkpoint."""
    if stage is None:
        return name
    return f"{layout.format_stage(stage)}/{name}"


def _require_step(choice: Choice, state: Mapping[str, Any]) -> None:
    named = choice.manifest.step if choice.manifest else layout.parse_step(choice.path.name)
    if "step" not in state or (named is not None and state["step"] != named):
        raise CorruptCheckpointError(
            f"{choice.path}: its train state is for step {state.get('step')}, not {named}",
            path=str(choice.path),
        )


def _freeze_differences(
    saved: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> str:
    """Describes the modules that both sides name and that differ; empty if none differ."""
    then = {spec["module"]: bool(spec["frozen"]) for spec in saved}
    now = {spec["module"]: bool(spec["frozen"]) for spec in expected}
    return ", ".join(
        f"{module} saved frozen={then[module]}, expected frozen={now[module]}"
        for module in sorted(then.keys() & now.keys())
        if then[module] != now[module]
    )
