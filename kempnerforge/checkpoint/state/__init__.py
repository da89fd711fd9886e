"""The state of a training program: collected at a save, restored at a load."""

from kempnerforge.checkpoint.state.rng import get_rng_state, set_rng_state
from kempnerforge.checkpoint.state.train_state import build_train_state, restore_train_state

__all__ = ["build_train_state", "get_rng_state", "restore_train_state", "set_rng_state"]
