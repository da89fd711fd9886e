"""A hit is tried on a real file system, and told as reproduced only where it showed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.__main__ import BAD_INPUT, RED, main
from harness.crash.explore import explore
from harness.crash.reproduce import Reproduction, reproduce
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES, ProfileName
from harness.disk.state import Parts, PartTree
from harness.evidence.cut import TreeListing, read_entries
from harness.evidence.store import ByteStore
from harness.run.support import missing_disk
from tests.harness.judge.cases import Case, RunCase, killed_run, write_run

needs_an_image = pytest.mark.skipif(
    missing_disk("ext4") is not None, reason=str(missing_disk("ext4"))
)


def one_more_save_without(kind: str, path: str) -> RunCase:
    """Step 6 is saved on top, and one of its operations is forgotten."""
    run = killed_run()
    run.stage(6)
    left = [one for one in run.operations if (one.kind, one.path) != (kind, path)]
    assert len(left) == len(run.operations) - 1
    run.operations = [one._replace(index=place) for place, one in enumerate(left)]
    run.commit(6)
    run.point(6)
    return run


def attempts(run: RunCase, profile: ProfileName, base: Path) -> dict[str, list[Reproduction]]:
    """What came of the hits on ext4, by property."""
    evidence = Case(runs=[run]).evidence()
    found = explore(evidence, profile=profile)
    tried = reproduce(found.hits, found, evidence, filesystems=("ext4",), base=base)
    by_property: dict[str, list[Reproduction]] = {}
    for hit in found.hits:
        by_property.setdefault(hit.cause.fault.property, []).extend(tried[id(hit)])
    return by_property


@needs_an_image
def test_a_file_that_was_not_synced_is_empty_on_a_real_disk_too(tmp_path: Path) -> None:
    run = one_more_save_without("fsync", ".staging-step_6/train_state.pt")

    tried = attempts(run, "ordered", tmp_path)

    assert tried.keys() == {"latest_durable", "whole_or_absent"}
    (first, *_) = tried["latest_durable"]
    assert (first.journal, first.cuts) == ("kept", 1)
    assert str(first).startswith("reproduced on ext4 (journal kept; run 0, after ")


@needs_an_image
def test_names_that_a_journal_keeps_are_not_missing_on_a_real_disk(tmp_path: Path) -> None:
    run = one_more_save_without("fsync", ".staging-step_6")

    tried = attempts(run, "posix", tmp_path)

    found = [one for several in tried.values() for one in several]
    assert len(found) > 1
    assert {one.journal for one in found} == {None}
    assert str(found[0]) in (
        "not reproduced on ext4 by 2 cuts",
        "not reproduced on ext4 by 4 cuts",
    )


def test_a_tree_that_was_found_on_a_disk_is_one_among_the_others(tmp_path: Path) -> None:
    (tmp_path / "step_2" / "pp0").mkdir(parents=True)
    (tmp_path / "step_2" / "pp0" / "a").write_bytes(b"bytes")
    (tmp_path / "b").write_bytes(b"bytes")
    (tmp_path / "latest").symlink_to("step_2")
    parts = Parts(Disk(PROFILES["posix"]))
    store = ByteStore(tmp_path.with_name("written"))
    listing = TreeListing(entries=read_entries(tmp_path, store), written=store)

    number = parts.adopt(listing)

    tree = PartTree(parts, number)
    assert tree.names(".") == ("b", "latest", "step_2")
    assert (tree.kind("step_2/pp0"), tree.text("latest")) == ("directory", "step_2")
    assert tree.content("step_2/pp0/a").read() == b"bytes"
    numbers = dict(parts.names(number))
    same = dict(parts.names(dict(parts.names(numbers["step_2"]))["pp0"]))["a"]
    assert parts.digest(numbers["b"]) == parts.digest(same)


@needs_an_image
def test_the_command_says_what_a_real_file_system_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(runs=[one_more_save_without("fsync", ".staging-step_6/train_state.pt")])
    directory = write_run(tmp_path / "ran", case)
    arguments = ["crash-states", str(directory), "--limit", "0", "--profile", "ordered"]

    assert main(arguments) == RED
    untried = capsys.readouterr().out
    assert main([*arguments, "--reproduce", "ext4"]) == RED
    tried = capsys.readouterr().out

    assert "      not tried on a real file system" in untried
    assert "reproduced on ext4 (journal kept; run 0, after " in tried
    assert "not tried" not in tried


def test_a_file_system_that_is_not_known_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["crash-states", str(tmp_path), "--reproduce", "ext4,zfs"])
    assert caught.value.code == BAD_INPUT
    assert "'zfs' is not a file system; possible: ext4, xfs, btrfs" in capsys.readouterr().err
