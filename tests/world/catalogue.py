"""All things, by name."""

from tests.world.forgetful import FORGETFUL
from tests.world.layouts import LAYOUTS
from tests.world.models import MODELS
from tests.world.optimizers import OPTIMIZERS
from tests.world.thing import Thing

THINGS: dict[str, Thing] = {**MODELS, **OPTIMIZERS, **LAYOUTS}
"""What has to come back."""
SERVED = {**THINGS, **{name: thing for name, (thing, _) in FORGETFUL.items()}}
