"""All things, by name."""

from tests.world.layouts import LAYOUTS
from tests.world.models import MODELS
from tests.world.optimizers import OPTIMIZERS
from tests.world.thing import Thing

THINGS: dict[str, Thing] = {**MODELS, **OPTIMIZERS, **LAYOUTS}
