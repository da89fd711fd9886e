"""Parts of a scenario that are distinguished by a key: `{kill: {rank: 1}, at: ...}`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Union

from pydantic import BeforeValidator, Discriminator, Tag

from harness.part import Part


class Worded(Part):
    """Base of such parts. `word` is the key, and the field of that name holds the settings."""

    word: ClassVar[str]
    """The key in files."""

    @property
    def settings(self) -> Any:
        """The settings under the key."""
        return getattr(self, self.word)


def one_of(kinds: tuple[type[Worded], ...], noun: str, *, entry: str) -> Any:
    """Returns the type of a field that holds one of these kinds.

    For error messages, `noun` is what they are called, and `entry` the key whose entries they are.
    """
    words = tuple(kind.word for kind in kinds)

    def only_one(value: Any) -> Any:
        if isinstance(value, dict) and len(value.keys() & set(words)) > 1:
            raise ValueError(f"one entry of `{entry}` holds one {noun}: {' or '.join(words)}")
        return value

    def tag(value: Any) -> str | None:
        # No key of a file looks like a tag, so no error is misplaced.
        if isinstance(value, Worded):
            return f"<{value.word}>"
        named = [word for word in words if isinstance(value, dict) and word in value]
        return f"<{named[0]}>" if named else None

    union: Any = Union[tuple(Annotated[kind, Tag(f"<{kind.word}>")] for kind in kinds)]  # noqa: UP007
    article = "an" if noun[0] in "aeiou" else "a"
    by_key = Discriminator(
        tag,
        custom_error_type=f"unknown_{noun}",
        custom_error_message=f"an entry of `{entry}` names {article} {noun}",
    )
    return Annotated[Annotated[union, by_key], BeforeValidator(only_one)]
