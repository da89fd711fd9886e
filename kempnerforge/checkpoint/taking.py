"""Captures the state of one rank at the moment of a save, so that training can continue."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from kempnerforge.checkpoint.archives.plain_values import encode_plain
from kempnerforge.checkpoint.bulk.plans import PlanBook, PlannedBulk
from kempnerforge.checkpoint.bulk.shards import stage_shards
from kempnerforge.checkpoint.bulk.staging import Stager
from kempnerforge.checkpoint.errors import RankFailure, describe
from kempnerforge.checkpoint.protocol.rounds import Rounds
from kempnerforge.checkpoint.protocol.save_messages import StagedState
from kempnerforge.checkpoint.state import own_values
from kempnerforge.checkpoint.state.model_state import LiveModel, assemble, mesh_signature
from kempnerforge.checkpoint.state.rank_local import OWN_KEY, is_beyond_first_format
from kempnerforge.checkpoint.state.rank_state import rank_part, without_rank_part

__all__ = ["take_state"]

logger = logging.getLogger(__name__)


def take_state(
    model: nn.Module,
    optimizer: Any,
    stager: Stager,
    plans: PlanBook,
    *,
    rounds: Rounds,
    build: Callable[[], dict[str, Any]],
) -> StagedState | RankFailure:
    """Captures this rank's state; returns a failure, for all ranks to raise, instead of raising.

    Args:
        model: The model, plain or sharded.
        optimizer: Its optimizer.
        stager: Copies tensors.
        plans: The plans of the previous save.
        rounds: Connects all ranks.
        build: Creates the train state; it can fail as well.
    """
    try:
        train_state, live = build(), LiveModel(model)
        state = assemble(live, optimizer)
        shards = stage_shards(
            state.shared,
            stager=stager,
            is_coordinator=rounds.rank == 0,
            world_size=rounds.world_size,
            buffers=live.flat_buffers,
        )
        stager.finish()
        bulk = PlannedBulk(plans=plans, shards=shards)
        return _with_values(bulk, live, state.own, train_state, rounds)
    except Exception as error:  # becomes the error of every rank
        logger.error("taking the state: %s", error, exc_info=error)
        return describe(error, rounds.rank)


def _with_values(
    bulk: PlannedBulk,
    live: LiveModel,
    optimizer_own: Mapping[str, Any],
    train_state: Mapping[str, Any],
    rounds: Rounds,
) -> StagedState:
    common, encoded = own_values.divide(train_state, live.module)
    own = {OWN_KEY: optimizer_own} if optimizer_own else {}
    rank_state = encode_plain(
        {**rank_part(train_state), **encoded, **own}, what="the state of this rank"
    )
    common_state = own_values.encode_common(
        common if rounds.rank == 0 else without_rank_part(common)
    )
    return StagedState(
        bulk=bulk,
        rank_file=partial(own_values.with_differing, rank_state, common_state),
        train_state=common_state,
        meshes=tuple(mesh_signature(live.parameters.values())),
        digests=own_values.digests(common) if rounds.world_size > 1 else {},
        has_own_values=bool(encoded) or is_beyond_first_format(optimizer_own),
    )
