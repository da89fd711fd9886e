"""What a run changes outside of the watched directory: what is there afterwards decides."""

from __future__ import annotations

from pathlib import Path

from harness.run.outside import Outside, describe


def test_only_what_is_new_other_or_gone_afterwards_counts(tmp_path: Path) -> None:
    for name in ("changed", "opened", "removed"):
        (tmp_path / name).write_text("before")
    (tmp_path / "folder").mkdir()
    outside = Outside(str(tmp_path / "own"), began_ns=0)
    outside.began_ns = (tmp_path / "opened").stat().st_ctime_ns + 1

    def noted(name: str) -> Path:
        outside.note(str(tmp_path / name))
        return tmp_path / name

    while noted("changed").stat().st_ctime_ns < outside.began_ns:
        noted("changed").write_text("after")
    noted("opened").read_text()
    noted("removed").unlink()
    noted("new").touch()
    noted("temporary").touch()
    noted("temporary").unlink()
    noted("refused")
    noted("folder").mkdir(exist_ok=True)
    noted("__pycache__")
    noted("own/rank0.log")
    outside.note("/dev/null")
    assert [Path(path).name for path in outside.changed()] == ["changed", "new", "removed"]


def test_a_few_folders_are_named_as_exactly_as_they_can_be() -> None:
    assert describe(["/a/b/one", "/a/b/two", "/a/c/d/three"]) == "2 in /a/b, 1 in /a/c/d"
    caches = [f"/home/user/.cache/{one}/file" for one in range(9)]
    assert describe([*caches, "/tmp/lock"]) == "9 in /home/user/.cache, 1 in /tmp"
