"""The checkpoint directory itself: its name, and whether it can be listed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD

from kempnerforge.checkpoint import CheckpointError, CheckpointManager, UnreachableDirectoryError
from kempnerforge.checkpoint.runtime.directories import local_directory
from kempnerforge.cli.__main__ import main
from kempnerforge.config.schema import CheckpointConfig
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.ranks import run_ranks

NOBODY = 65534


def manager(directory: Any, **options: Any) -> CheckpointManager:
    model = nn.Linear(2, 2)
    config = CheckpointConfig(dir=directory, **options)

    return CheckpointManager(config, model, SGD(model.parameters(), lr=0.1))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users may enter, unlike those of pytest."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


def dangling(place: Path) -> Path:
    (place / "link").symlink_to(place / "not-mounted" / "ckpt")
    return place / "link"


def below_a_dangling_link(place: Path) -> Path:
    return dangling(place) / "run" / "ckpt"


def file(place: Path) -> Path:
    (place / "file").touch()
    return place / "file"


def below_a_file(place: Path) -> Path:
    return file(place) / "x"


def link_to_a_file(place: Path) -> Path:
    (place / "link").symlink_to(file(place))
    return place / "link"


def circle(place: Path) -> Path:
    (place / "loop").symlink_to(place / "loop")
    return place / "loop"


def below_a_circle(place: Path) -> Path:
    return circle(place) / "ckpt"


def saved(place: Path) -> Path:
    manager(str(place / "shut" / "ckpt")).save(1)
    return place / "shut" / "ckpt"


def parent_shut(place: Path) -> Path:
    root = saved(place)
    root.parent.chmod(0o700)
    return root


def not_to_be_listed(place: Path) -> Path:
    root = saved(place)
    root.chmod(0o711)
    return root


UNREACHABLE: dict[Callable[[Path], Path], str] = {
    dangling: "link to .*/not-mounted/ckpt, which leads nowhere",
    below_a_dangling_link: "/link is a link to .*/not-mounted/ckpt, which leads nowhere",
    file: "Not a directory",
    below_a_file: "Not a directory",
    link_to_a_file: "Not a directory",
    circle: "Too many levels of symbolic links",
    below_a_circle: "Too many levels of symbolic links",
    parent_shut: "Permission denied",
    not_to_be_listed: "Permission denied",
}


@pytest.fixture
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("make", UNREACHABLE)
def test_a_directory_that_cannot_be_looked_into_is_not_taken_for_an_empty_one(
    place: Path, make: Callable[[Path], Path], request: pytest.FixtureRequest
) -> None:
    root = make(place)
    if make in (parent_shut, not_to_be_listed):
        request.getfixturevalue("as_nobody")
    for call in (
        lambda: resolve_resume_path(root),
        lambda: manager(str(root)),
    ):
        with pytest.raises(UnreachableDirectoryError, match=UNREACHABLE[make]) as raised:
            call()
        assert str(root) in str(raised.value)
        assert raised.value.path == str(root)
        assert isinstance(raised.value, CheckpointError)


def test_a_directory_that_went_away_behind_its_name_is_an_error_of_load_and_peek(
    place: Path,
) -> None:
    target = place / "mounted"
    target.mkdir()
    (place / "link").symlink_to(target)
    given = manager(str(place / "link"))
    target.rmdir()
    with pytest.raises(UnreachableDirectoryError, match="leads nowhere"):
        given.load()
    with pytest.raises(UnreachableDirectoryError, match="leads nowhere"):
        given.peek_saved_step()


@pytest.mark.parametrize("name", ["new", "a/b/c", "link", "link/below"])
def test_a_directory_that_does_not_exist_yet_is_a_clean_start(place: Path, name: str) -> None:
    (place / "there").mkdir()
    (place / "link").symlink_to(place / "there")
    root = place / name
    assert resolve_resume_path(root) is None
    given = manager(str(root))
    assert (given.peek_saved_step(), given.load()) == (None, (0, 0, {}))
    given.save(1)
    assert resolve_resume_path(root) == root / "step_1"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NAME", "seven")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("~/ckpt", "home/ckpt"),
        ("~", "home"),
        ("$RUNS/ckpt", "runs/ckpt"),
        ("${RUNS}/a-${NAME}b", "runs/a-sevenb"),
        ("a~b/~", "a~b/~"),
        ("costs 5$ or $1", "costs 5$ or $1"),
        ("a/../b//./c/", "a/../b/c"),
        ("relative", "relative"),
    ],
)
def test_a_name_stands_for_what_a_shell_makes_of_it(
    environment: Path, name: str, expected: str
) -> None:
    assert local_directory(name) == environment / expected
    assert local_directory(Path(name)) == environment / expected


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("$UNSET/ckpt", r"\$UNSET/ckpt names \$UNSET, but UNSET is not set or is empty"),
        ("x/${UNSET}", "UNSET is not set or is empty"),
        ("$EMPTY/ckpt", "EMPTY is not set or is empty"),
        ("~no-such-user/ckpt", "names an unknown home directory"),
        ("s3://bucket/ckpt", "is a URL"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused_wherever_it_is_given(
    environment: Path, name: str, problem: str
) -> None:
    given = manager(str(environment / "runs"))
    named = manager(str(environment / "runs"), load_path=name)
    for call in (
        lambda: local_directory(name),
        lambda: resolve_resume_path(name),
        lambda: manager(name),
        lambda: given.load(path=name),
        lambda: named.load(),
    ):
        with pytest.raises(ValueError, match=problem):
            call()


@pytest.mark.parametrize("name", ["~/ckpt", "$RUNS/ckpt"])
def test_a_directory_that_an_older_version_made_by_the_name_as_written_is_not_forgotten(
    environment: Path, name: str
) -> None:
    (environment / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="exists as well; give the full path"):
        resolve_resume_path(name)
    assert local_directory(environment / "literally") == environment / "literally"


def test_every_way_to_name_a_directory_means_the_same(environment: Path) -> None:
    saving = manager("$RUNS/ckpt")
    saving.save(3)
    root = environment / "runs" / "ckpt"
    assert resolve_resume_path("${RUNS}/ckpt") == root / "step_3"
    assert manager("elsewhere", load_path="$RUNS/ckpt/step_3").load()[0] == 3
    assert manager("elsewhere").load(path="$RUNS/ckpt")[0] == 3
    assert manager("elsewhere").peek_saved_step("$RUNS/ckpt/step_3") == 3


def test_the_command_takes_the_same_names(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manager("$RUNS/ckpt").save(3)
    assert main(["ls", "${RUNS}/ckpt"]) == 0
    assert "step_3" in capsys.readouterr().out
    for name, problem in (("", "is empty"), ("$UNSET", "UNSET is not set or is empty")):
        with pytest.raises(SystemExit) as raised:
            main(["verify", name])
        assert raised.value.code == 2
        assert problem in capsys.readouterr().err


def load_from(rank: int, directory: Path, roots: tuple[str, ...]) -> tuple[str, str]:
    root = directory / roots[rank]
    try:
        path = resolve_resume_path(directory / roots[0])
        manager(str(root), commit_timeout_s=30.0).load()
    except CheckpointError as error:
        return type(error).__name__, str(error)
    return "loaded", str(path)


def test_all_ranks_are_told_alike_that_the_directory_leads_nowhere(tmp_path: Path) -> None:
    dangling(tmp_path)
    one, other = run_ranks(load_from, tmp_path, ("link", "link"), world=2)
    assert one == other
    assert one[0] == "UnreachableDirectoryError"
    assert "leads nowhere; is its storage mounted?" in one[1]


def test_a_directory_that_one_rank_alone_cannot_reach_is_an_error_of_all(tmp_path: Path) -> None:
    dangling(tmp_path)
    one, other = run_ranks(load_from, tmp_path, ("there", "link"), world=2)
    for kind, message in (one, other):
        assert kind == "UnreachableDirectoryError"
        assert "rank 1: UnreachableDirectoryError: the checkpoint directory" in message
