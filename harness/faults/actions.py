"""What may happen to a checkpoint directory between two runs, while no process of the job lives.

Damage hits files: a pattern is matched against all paths below the checkpoint directory, and of
several matches one is taken, which the seed decides, or all of them with `every`. The rest is what
people and their tools do: names of their own, a repointed `latest`, a directory moved elsewhere.

Most of it can also happen while the job runs (`by_hand`, a fault). Out of scope: changed
permissions, and damage to the file system itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from harness.part import Part
from harness.words import ACTIONS

Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*$", max_length=60)]


class OnFiles(Part):
    """Which files are hit: one of those that match, or every one."""

    path: str = Field(min_length=1, description="fnmatch pattern below the checkpoint directory")
    every: bool = False


class Flipping(OnFiles):
    """Which byte loses one bit; by default one that the seed decides."""

    byte: int | None = Field(None, ge=0)


class Cutting(OnFiles):
    """How many bytes are left; by default half of them."""

    to: int | None = Field(None, ge=0)


class Swapping(Part):
    """A file, and the other checkpoint whose file of the same name it changes places with."""

    path: str = Field(min_length=1, description="fnmatch pattern below the checkpoint directory")
    against: str = Field(min_length=1, description="name of the other checkpoint's directory")


class Writing(Part):
    """The text that a file holds from now on; it is created if it is not there."""

    path: str = Field(min_length=1)
    text: str


class Naming(Part):
    """A name that no checkpointer made: a file, a directory with a file in it, or a symlink."""

    path: Name
    kind: Literal["file", "directory", "link"]


class Leaving(Part):
    """What a run that died in mid-save would have left, under the name that earlier saves used."""

    kind: Literal["staging", "link"]


class Pointing(Part):
    """What becomes of `latest`: it names another step, or is no link to a checkpoint any more."""

    step: int | None = Field(None, ge=0)
    becomes: Literal["absent", "dangling", "directory"] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Pointing:
        if (self.step is None) == (self.becomes is None):
            raise ValueError("`latest` needs either `step` or `becomes`")
        return self


class Placing(Part):
    """Where the checkpoint directory is from now on, and whether the old one stays."""

    how: Literal["move", "copy"]
    to: Name


class Displacing(Part):
    """What has the name of the directory from then on: nothing, or an empty directory.

    An empty one is what a lost mount leaves, or somebody who has moved the directory and made it
    anew.
    """

    leaves: Literal["nothing", "empty"]


class PuttingBack(Part):
    """It is put back as it was; there is nothing to say of it."""


class FlipBit(Part):
    """One bit of a file changes."""

    flip_bit: Flipping


class Truncate(Part):
    """A file loses its end."""

    truncate: Cutting


class Delete(Part):
    """A file, a symlink or a directory with all that is in it goes."""

    delete: OnFiles


class Swap(Part):
    """Two files of the same name in two checkpoints change places."""

    swap: Swapping


class HalfDelete(Part):
    """A deletion that was interrupted: half of the files below a directory are gone."""

    half_delete: OnFiles


class Hostile(Part):
    """A pickled file means the same as before, and runs code where it is unpickled carelessly."""

    hostile: OnFiles


class Write(Part):
    """A file is written by hand."""

    write: Writing


class Foreign(Part):
    """A name of somebody else's appears beside the checkpoints."""

    foreign: Naming


class Leftover(Part):
    """What a dead run left behind appears."""

    leftover: Leaving


class Latest(Part):
    """The symlink `latest` is changed."""

    latest: Pointing


class Relocate(Part):
    """The whole directory is moved or copied elsewhere, and the job goes on there."""

    relocate: Placing


class Displace(Part):
    """The whole directory loses its name while the job lives, and keeps all that is in it."""

    displace: Displacing


class PutBack(Part):
    """The directory has its name again; what has had it meanwhile loses it."""

    put_back: PuttingBack


def action_of(action: Part) -> str:
    """The word of an action, as files spell it."""
    return next(word for word in ACTIONS if word in type(action).model_fields)


def _one_action(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > 1:
        raise ValueError(f"one entry of `before` holds one action: {' or '.join(ACTIONS)}")
    return value


def _tag(value: Any) -> str | None:
    """The tag of the union below; no key of a file looks like one, so no error is misplaced."""
    if isinstance(value, Part):
        return f"<{action_of(value)}>"
    named = [word for word in ACTIONS if isinstance(value, dict) and word in value]
    return f"<{named[0]}>" if named else None


Action = Annotated[
    Annotated[
        Annotated[FlipBit, Tag("<flip_bit>")]
        | Annotated[Truncate, Tag("<truncate>")]
        | Annotated[Delete, Tag("<delete>")]
        | Annotated[Swap, Tag("<swap>")]
        | Annotated[HalfDelete, Tag("<half_delete>")]
        | Annotated[Hostile, Tag("<hostile>")]
        | Annotated[Write, Tag("<write>")]
        | Annotated[Foreign, Tag("<foreign>")]
        | Annotated[Leftover, Tag("<leftover>")]
        | Annotated[Latest, Tag("<latest>")]
        | Annotated[Relocate, Tag("<relocate>")]
        | Annotated[Displace, Tag("<displace>")]
        | Annotated[PutBack, Tag("<put_back>")],
        Discriminator(
            _tag,
            custom_error_type="unknown_action",
            custom_error_message="an entry of `before` names an action",
        ),
    ],
    BeforeValidator(_one_action),
]
