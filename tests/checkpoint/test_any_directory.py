"""Whatever a directory contains, reading it and choosing from it end well.

The pieces are real directories and files on a real disk: committed and plain checkpoints, torn
ones, leftovers, foreign names, links, and files where directories are expected.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kempnerforge.checkpoint.bulk.trust import PLAIN_DATA
from kempnerforge.checkpoint.errors import NoUsableCheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import State, read_catalog
from kempnerforge.checkpoint.protocol.choosing import Search, cheap_choice, choose
from kempnerforge.checkpoint.protocol.proposal import Choice
from kempnerforge.checkpoint.protocol.prune import finish_off
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.cli.cautious import CautiousStorage, walk
from kempnerforge.cli.checking import check_directory
from kempnerforge.cli.listing import list_directory
from kempnerforge.cli.mending import plan_repair
from tests.checkpoint.effects import runtime
from tests.checkpoint.simulated import carry_out
from tests.cli.checkpoints import SHARD, save, save_plain

PIECES = (
    "committed",
    "plain",
    "flipped",
    "without manifest",
    "without shard",
    "without train state",
    "empty",
    "file",
    "link",
    "circle",
    "moved",
    "file as stage",
    "directory as manifest",
)
LEFTOVERS = tuple(
    f"{name}00c0ffee00c0ffee"
    for name in (".staging-step_1-", ".replaced-step_2-", ".trash-step_3-", ".latest-")
)
FOREIGN = ("step_03", "step_1.bak", "old-step_2", ".staging-step_1-x", "step_", "latest.old", "x")
OTHERS = ("directory", "file", "link")
WHOLE = frozenset(("committed", "plain", "moved"))


@dataclass(frozen=True)
class Mixture:
    """What a directory holds."""

    history: dict[int, str]
    left: dict[str, str]
    others: dict[str, str]
    latest: str | None
    latest_is_directory: bool

    def put(self, templates: Path, root: Path) -> None:
        for step, piece in self.history.items():
            put(templates, root, step, piece)
        for name, piece in {**self.left, **self.others}.items():
            put_other(root, name, piece)
        if self.latest is not None and self.latest_is_directory:
            put_other(root, layout.LATEST, "directory")
        elif self.latest is not None:
            (root / layout.LATEST).symlink_to(self.latest)

    def whole(self) -> set[str]:
        return {f"step_{step}" for step, piece in self.history.items() if piece in WHOLE}


mixtures = st.builds(
    Mixture,
    history=st.dictionaries(st.integers(0, 4), st.sampled_from(PIECES), max_size=4),
    left=st.dictionaries(st.sampled_from(LEFTOVERS), st.sampled_from(OTHERS), max_size=2),
    others=st.dictionaries(st.sampled_from(FOREIGN), st.sampled_from(OTHERS)),
    latest=st.sampled_from((None, "step_0", "step_1", "step_9", "latest", "/", "x")),
    latest_is_directory=st.booleans(),
)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkpoint of each kind a step, to be copied."""
    root = tmp_path_factory.mktemp("templates")
    for step in range(5):
        save(root / "committed", step)
        save_plain(root / "plain", step)
    return root


def put(templates: Path, root: Path, step: int, piece: str) -> None:
    path = root / layout.format_step(step)
    kind = "plain" if piece == "plain" else "committed"
    template = templates / kind / path.name
    match piece:
        case "empty":
            path.mkdir()
        case "file":
            path.write_bytes(b"mine")
        case "link":
            path.symlink_to("nowhere")
        case "circle":
            path.symlink_to(path.name)
        case "moved":
            shutil.copytree(template, root.parent / "archive" / path.name)
            path.symlink_to(root.parent / "archive" / path.name)
        case _:
            shutil.copytree(template, path)
            damage(path, piece)


def damage(path: Path, piece: str) -> None:
    match piece:
        case "flipped":
            (path / SHARD).write_bytes(b"shaRd")
        case "without manifest":
            (path / layout.MANIFEST).unlink()
        case "without shard":
            (path / SHARD).unlink()
        case "without train state":
            (path / layout.TRAIN_STATE).unlink()
        case "file as stage":
            shutil.rmtree(path)
            path.mkdir()
            (path / layout.TRAIN_STATE).touch()
            (path / "pp0").touch()
        case "directory as manifest":
            (path / layout.MANIFEST).unlink()
            (path / layout.MANIFEST).mkdir()


def put_other(root: Path, name: str, piece: str) -> None:
    match piece:
        case "file":
            (root / name).write_bytes(b"mine")
        case "link":
            (root / name).symlink_to("nowhere")
        case _:
            (root / name).mkdir()
            (root / name / "inside").write_bytes(b"mine")


def contents(root: Path, names: Iterable[str]) -> dict[str, object]:
    return {
        name: root.joinpath(name).readlink() if (root / name).is_symlink() else read(root / name)
        for name in names
    }


def read(path: Path) -> object:
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in walk(path).files}
    return path.read_bytes()


def chosen(root: Path) -> Choice | None:
    search = Search(root=root, shards=PLAIN_DATA)
    return carry_out(choose(search, runtime(LocalStorage()), timeout_s=60.0))


@settings(max_examples=60, deadline=None)
@given(mixture=mixtures)
def test_any_mixture_is_listed_chosen_from_and_cleaned_without_harm(
    tmp_path_factory: pytest.TempPathFactory, templates: Path, mixture: Mixture
) -> None:
    root = tmp_path_factory.mktemp("any") / "root"
    root.mkdir()
    mixture.put(templates, root)
    before = contents(root, mixture.others)
    expected = mixture.whole()

    torn = {
        e.path.name for e in read_catalog(root, LocalStorage()).entries if e.state is State.torn
    }
    assert not torn & expected
    try:
        found = chosen(root)
    except NoUsableCheckpointError:
        assert not expected
    else:
        assert (found is None) == (not expected)
        assert found is None or found.path.name in expected
    cheap_choice(Search(root=root, shards=PLAIN_DATA), runtime(LocalStorage()))
    list_directory(root, CautiousStorage())
    check_directory(root, CautiousStorage(), deep=True)
    assert plan_repair(root, CautiousStorage(), deep=True).mended or not expected

    finish_off(root, runtime(LocalStorage()))
    assert contents(root, mixture.others) == before
    steps = {f"step_{step}" for step in mixture.history}
    assert steps <= {path.name for path in root.iterdir()}
