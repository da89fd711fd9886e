"""Taking the state of one rank at the moment of a save, so that training may go on."""

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from kempnerforge.checkpoint.bulk.shards import stage_shards
from kempnerforge.checkpoint.bulk.staging import Stager
from kempnerforge.checkpoint.errors import RankFailure, describe
from kempnerforge.checkpoint.format.plain_values import encode_plain
from kempnerforge.checkpoint.protocol.save_messages import StagedState
from kempnerforge.checkpoint.runtime.collective import Collective
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
    collective: Collective,
    *,
    build: Callable[[], dict[str, Any]],
) -> StagedState | RankFailure:
    """Take this rank's state; what goes wrong here becomes the error of every rank.

    Args:
        model: Plain or sharded.
        optimizer: Its optimizer.
        stager: Copies tensors.
        collective: All ranks.
        build: Makes the train state, which may fail as well.
    """
    try:
        return _take(model, optimizer, stager, collective, build())
    except Exception as error:  # becomes the error of every rank
        logger.error("taking the state: %s", error, exc_info=error)
        return describe(error, collective.rank)


def _take(
    model: nn.Module,
    optimizer: Any,
    stager: Stager,
    collective: Collective,
    train_state: dict[str, Any],
) -> StagedState:
    live = LiveModel(model)
    state = assemble(live, optimizer)
    shards = stage_shards(
        state.shared,
        stager=stager,
        is_coordinator=collective.rank == 0,
        world_size=collective.world_size,
        buffers=live.flat_buffers,
    )
    stager.finish()
    common, encoded = own_values.divide(train_state, live.module)
    own = {OWN_KEY: state.own} if state.own else {}
    return StagedState(
        shards=shards,
        rank_state=encode_plain(
            {**rank_part(train_state), **encoded, **own}, what="the state of this rank"
        ),
        train_state=own_values.encode_common(
            common if collective.rank == 0 else without_rank_part(common)
        ),
        meshes=tuple(mesh_signature(live.parameters.values())),
        digests=own_values.digests(common) if collective.world_size > 1 else {},
        has_own_values=bool(encoded) or is_beyond_first_format(state.own),
    )
