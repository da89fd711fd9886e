"""A layout in words: names with a step, completing files, and pointers of several kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from harness.content import Content
from harness.layouts.worded import WordedLayout
from harness.world import World


@dataclass
class Listed:
    """A tree of files with their texts; a text that begins with -> is a symlink."""

    texts: Mapping[str, str]

    def kind(self, path: str) -> Literal["file", "directory", "symlink"] | None:
        if path in self.texts:
            return "symlink" if self.texts[path].startswith("->") else "file"
        return "directory" if self.names(path) else None

    def names(self, path: str) -> tuple[str, ...]:
        start = "" if path == "." else f"{path}/"
        inside = [one.removeprefix(start) for one in self.texts if one.startswith(start)]
        return tuple(sorted({one.partition("/")[0] for one in inside}))

    def text(self, path: str) -> str:
        return self.texts[path].removeprefix("->")

    def content(self, path: str) -> Content:
        raw = self.texts[path].encode()
        return Content.of(raw, 0, len(raw))


FOLDERS = WordedLayout(
    checkpoints="checkpoint-{step}", complete=("state.json", "*.pt"), pointer="latest"
)
FILES = WordedLayout(checkpoints="epoch=*-step={step}.ckpt")


@pytest.mark.parametrize(
    ("layout", "name", "step"),
    [
        (FOLDERS, "checkpoint-12", 12),
        (FOLDERS, "checkpoint-12.tmp", None),
        (FOLDERS, "checkpoint-", None),
        (FOLDERS, "my-checkpoint-3", None),
        (FILES, "epoch=0-step=30.ckpt", 30),
        (FILES, "epoch=0-step=30-v1.ckpt", None),
    ],
)
def test_a_name_has_the_step_of_its_word(layout: WordedLayout, name: str, step: int | None) -> None:
    assert layout.step_of(name) == step


def test_a_folder_is_a_checkpoint_once_its_completing_files_are_there() -> None:
    tree = Listed(
        {
            "checkpoint-2/state.json": "{}",
            "checkpoint-2/model.pt": "x",
            "checkpoint-4/model.pt": "x",
            "other/state.json": "{}",
        }
    )
    assert FOLDERS.checkpoints(tree) == {"checkpoint-2": 2}
    assert FOLDERS.defects(tree, "checkpoint-2", World()) == ()
    assert FOLDERS.defects(tree, "checkpoint-4", World()) == ("state.json is missing",)


def test_a_file_can_be_a_checkpoint() -> None:
    assert FILES.checkpoints(Listed({"epoch=1-step=4.ckpt": "x", "last.ckpt": "x"})) == {
        "epoch=1-step=4.ckpt": 4
    }


@pytest.mark.parametrize(
    ("pointer", "state", "name"),
    [
        (None, "absent", None),
        ("checkpoint-2\n", "checkpoint", "checkpoint-2"),
        ("/somewhere/out/checkpoint-2", "checkpoint", "checkpoint-2"),
        ("2", "checkpoint", "checkpoint-2"),
        ("->checkpoint-2", "checkpoint", "checkpoint-2"),
        ("checkpoint-4", "dangling", "checkpoint-4"),
        ("", "astray", None),
    ],
)
def test_a_pointer_is_a_text_or_a_symlink(
    pointer: str | None, state: str, name: str | None
) -> None:
    texts = {"checkpoint-2/state.json": "{}", "checkpoint-2/model.pt": "x"}
    found = FOLDERS.latest(Listed(texts if pointer is None else {**texts, "latest": pointer}))
    assert (found.state, found.name) == (state, name)
