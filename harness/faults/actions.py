"""Actions on a checkpoint directory between two runs, while no process of the job lives.

Damage hits files: a pattern is matched against all paths below the checkpoint directory. Of several
matches one is taken, chosen by the seed, or all of them with `every`. The other actions are what
people and their tools do: names of their own, a repointed `latest`, a directory moved elsewhere.

Most of them can also happen while the job runs (`operator`, a fault). Out of scope: changed
permissions, and damage to the file system itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness.faults.worded import Worded, one_of
from harness.part import Part

Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*$", max_length=60)]


class OnFiles(Part):
    """Which files are hit: one of those that match, or every one."""

    path: str = Field(min_length=1, description="fnmatch pattern below the checkpoint directory")
    every: bool = False


class Flipping(OnFiles):
    """Which byte loses one bit; by default the seed decides."""

    byte: int | None = Field(None, ge=0)


class Truncation(OnFiles):
    """How many bytes are left; by default half of them."""

    to: int | None = Field(None, ge=0)


class Swapping(Part):
    """A file, and the other checkpoint whose file of the same name it is swapped with."""

    path: str = Field(min_length=1, description="fnmatch pattern below the checkpoint directory")
    against: str = Field(min_length=1, description="name of the other checkpoint's directory")


class Writing(Part):
    """The new text of a file, which is created if it does not exist."""

    path: str = Field(min_length=1)
    text: str


class Naming(Part):
    """A name that no checkpointer made: a file, a directory with a file in it, or a symlink."""

    path: Name
    kind: Literal["file", "directory", "link"]


class Leaving(Part):
    """Leftovers of a run that died in mid-save, under the name that earlier saves used."""

    kind: Literal["staging", "link"]


class Pointing(Part):
    """The new state of `latest`: it names another step, or no checkpoint any more."""

    step: int | None = Field(None, ge=0)
    becomes: Literal["absent", "dangling", "directory"] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Pointing:
        if (self.step is None) == (self.becomes is None):
            raise ValueError("`latest` needs either `step` or `becomes`")
        return self


class Placing(Part):
    """The new place of the checkpoint directory, and whether the old one stays."""

    how: Literal["move", "copy"]
    to: Name


class Displacing(Part):
    """The new owner of the directory's name: nothing, or an empty directory.

    A lost mount leaves an empty directory, and so does a person who moved the directory away and
    created it anew.
    """

    leaves: Literal["nothing", "empty"]


class PuttingBack(Part):
    """The directory gets its old place again; there is nothing to set."""


class Acting(Worded):
    """Base of the actions. The settings say what is hit."""

    does: ClassVar[str] = ""
    """The verb of titles, before a path: `a bit flips in`."""
    rests_on: ClassVar[str | None] = None
    """The promise without which the runs after it show nothing, if there is one."""

    @property
    def asks(self) -> str | None:
        """Returns `rests_on`, unless it depends on the settings."""
        return self.rests_on

    def describe(self) -> str:
        """Returns the event as titles phrase it."""
        return f"{self.does} {self.settings.path}"


class FlipBit(Acting):
    """One bit of a file changes."""

    word: ClassVar[str] = "flip_bit"
    rests_on: ClassVar[str | None] = "integrity"
    does: ClassVar[str] = "a bit flips in"
    flip_bit: Flipping


class Truncate(Acting):
    """A file loses its end."""

    word: ClassVar[str] = "truncate"
    rests_on: ClassVar[str | None] = "integrity"
    does: ClassVar[str] = "the end is lost of"
    truncate: Truncation


class Delete(Acting):
    """A file, a symlink or a whole directory is deleted."""

    word: ClassVar[str] = "delete"
    rests_on: ClassVar[str | None] = "integrity"
    does: ClassVar[str] = "somebody deletes"
    delete: OnFiles


class Swap(Acting):
    """Two files of the same name in two checkpoints are swapped."""

    word: ClassVar[str] = "swap"
    rests_on: ClassVar[str | None] = "integrity"
    does: ClassVar[str] = "a file of another save takes the place of"
    swap: Swapping


class HalfDelete(Acting):
    """A deletion that was interrupted: half of the files below a directory are gone."""

    word: ClassVar[str] = "half_delete"
    rests_on: ClassVar[str | None] = "integrity"
    does: ClassVar[str] = "somebody deletes half of"
    half_delete: OnFiles


class Hostile(Acting):
    """A pickled file keeps its meaning, and runs code if it is unpickled carelessly."""

    word: ClassVar[str] = "hostile"
    rests_on: ClassVar[str | None] = "no_code_on_load"
    does: ClassVar[str] = "a pickle that runs code takes the place of"
    hostile: OnFiles


class Write(Acting):
    """An operator writes a file."""

    word: ClassVar[str] = "write"
    rests_on: ClassVar[str | None] = "integrity"
    does: ClassVar[str] = "somebody edits"
    write: Writing


class Foreign(Acting):
    """A name that no checkpointer made appears beside the checkpoints."""

    word: ClassVar[str] = "foreign"
    does: ClassVar[str] = "somebody leaves"
    foreign: Naming


class AddLeftover(Acting):
    """Leftovers of a dead run appear."""

    word: ClassVar[str] = "leftover"
    leftover: Leaving

    def describe(self) -> str:
        return f"a dead run left a {self.leftover.kind}"


class SetLatest(Acting):
    """The pointer `latest` is changed: a symlink stays one, and so does a file with a name."""

    word: ClassVar[str] = "latest"
    latest: Pointing

    @property
    def asks(self) -> str | None:
        return None if self.latest.becomes is None else "integrity"

    def describe(self) -> str:
        to = self.latest
        return f"latest is {to.becomes}" if to.becomes else f"latest is set to step {to.step}"


class Relocate(Acting):
    """The whole directory is moved or copied elsewhere, and the job goes on there."""

    word: ClassVar[str] = "relocate"
    relocate: Placing

    def describe(self) -> str:
        return f"the directory is {'copied' if self.relocate.how == 'copy' else 'moved'}"


class Displace(Acting):
    """The directory loses its name while the job runs, and keeps its contents."""

    word: ClassVar[str] = "displace"
    rests_on: ClassVar[str | None] = "file_systems"
    displace: Displacing

    def describe(self) -> str:
        return "the directory is moved away"


class PutBack(Acting):
    """The directory gets its name back; what had it meanwhile loses it."""

    word: ClassVar[str] = "put_back"
    rests_on: ClassVar[str | None] = "file_systems"
    put_back: PuttingBack

    def describe(self) -> str:
        return "it is put back"


KINDS: tuple[type[Acting], ...] = (
    FlipBit,
    Truncate,
    Delete,
    Swap,
    HalfDelete,
    Hostile,
    Write,
    Foreign,
    AddLeftover,
    SetLatest,
    Relocate,
    Displace,
    PutBack,
)

ACTIONS = tuple(kind.word for kind in KINDS)
"""Their keys; each entry of `before` and of `operator` has one of them."""

DISPLACING = (Displace.word, PutBack.word)
"""Actions on the directory as a whole while the job runs; each of them is one operation."""


if TYPE_CHECKING:
    Action = Acting
else:
    Action = one_of(KINDS, "action", entry="before")
"""One of them, as a field of a model."""
