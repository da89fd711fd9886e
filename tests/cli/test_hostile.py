"""A hostile directory neither runs code, hangs the command, nor exhausts memory."""

import json
import os
import pickle
import resource
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.__main__ import main as make_scenario
from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnsafeCheckpointError
from kempnerforge.checkpoint.format import inert, layout
from kempnerforge.cli.__main__ import main
from kempnerforge.cli.cautious import MOST_READ_BYTES
from kempnerforge.cli.cleaning import clean
from tests.cli.checkpoints import SHARD, save, save_plain, shard_metadata

NOBODY = 65534
LOOKING = (
    ["ls"],
    ["verify"],
    ["verify", "--deep"],
    ["repair"],
    ["retain", "--keep-last-n", "1"],
)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """1 GiB more than there is now: enough for what is read, and little for a bomb."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def look_at(root: Path, path: Path | None = None) -> list[int]:
    """Status of every command that looks, in text and in JSON."""
    commands = [[*command, str(root)] for command in LOOKING]
    if path is not None:
        commands += [["show", str(path)], ["verify", "--deep", str(path)]]
        commands += [["diff", str(path), str(path)]]
    for more in ([], ["--deep"]):
        # Reads as the commands do, and has exit statuses of its own.
        assert make_scenario(["capture", *more, str(root)]) in (0, 1, 2)
    return [main([*command, *more]) for command in commands for more in ([], ["--json"])]


@pytest.mark.parametrize("name", [layout.MANIFEST, layout.METADATA, layout.SHARD_METADATA, SHARD])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory", "circle", "sparse"])
def test_what_is_no_sensible_file_is_a_problem_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    file = path / name
    file.unlink()
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "socket":
            monkeypatch.chdir(path)  # a socket's path is short
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(name)
        case "device":
            file.symlink_to("/dev/zero")
        case "directory":
            file.mkdir()
        case "circle":
            file.symlink_to(name)
        case _:
            with file.open("wb") as sparse:
                sparse.truncate(1 << 42)
    assert set(look_at(tmp_path, path)) <= {0, 1, 2}
    assert main(["verify", "--deep", str(path)]) == 1
    assert main(["repair", "--apply", str(tmp_path)]) == 0
    assert (tmp_path / "latest").readlink() == Path("step_1")


def test_names_with_escape_codes_are_written_as_escapes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, 1)
    (path / "a\x1b[31m\nstep_9 committed").touch()
    (Path(os.fsdecode(os.fsencode(path) + b"/\xff"))).touch()
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("\x1b]0;title\x07")
    look_at(tmp_path, path)
    output = capfd.readouterr().out
    assert "\x1b" not in output
    assert "\x07" not in output
    assert r"a\x1b[31m\x0astep_9 committed" in output


@given(st.text())
def test_clean_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 100_000,
        b'{"step": ' + b"9" * 100_000 + b"}",
        b"\xff\xfe",
        b'{"vlm_freeze": [1, {"module": []}], "tokens_seen": "\\u001b"}',
        b"nan",
    ],
)
@pytest.mark.parametrize("name", [layout.MANIFEST, layout.METADATA])
def test_json_without_end_or_sense_is_survived(tmp_path: Path, name: str, content: bytes) -> None:
    path = save(tmp_path, 1)
    (path / name).write_bytes(content)
    assert set(look_at(tmp_path, path)) <= {0, 1, 2}
    assert main(["verify", "--deep", str(path)]) == 1


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "ranks/../../x", "", ".", "a//b", "a\0b", "a\nb"]
)
def test_a_manifest_that_names_files_elsewhere_is_refused(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, 1)
    outer = json.loads((path / layout.MANIFEST).read_bytes())
    outer["manifest"]["files"][name] = {"size": 1, "crc32": "00000000"}
    outer["crc32"] = f"{zlib.crc32(canonical(outer['manifest'])):08x}"
    (path / layout.MANIFEST).write_bytes(canonical(outer) + b"\n")
    assert main(["verify", str(path)]) == 1
    assert "cannot be the name of a file" in capfd.readouterr().out


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Harm:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def test_a_hostile_pickle_is_refused_by_name_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_plain(tmp_path / "c", 1)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Harm(), protocol=protocol)
        (path / layout.SHARD_METADATA).write_bytes(data)
        (path / layout.TRAIN_STATE).write_bytes(data)
        assert main(["verify", "--deep", str(path)]) == 1
        assert "mkdir, which is not allowed" in capfd.readouterr().out
        look_at(tmp_path / "c", path)
    assert not (tmp_path / "harm").exists()


def nested_tuples(depth: int) -> bytes:
    """``t = (t, t)`` over and over as a key of a dict: hashing it would take for ever."""
    return b"\x80\x04})" + b"2\x86" * depth + b"Ks."


@pytest.mark.parametrize(
    "data",
    [
        nested_tuples(60),
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # a bytearray of 2**63 bytes
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # memo entry 2**31
        b"\x80\x04" + b"(" * 100_000 + b".",
        b"\x80\x04]" + b"]" * 20_000 + b"a" * 20_000 + b".",
        b"\x80\x04\x8b\xff\xff\xff\x7f.",  # an integer of 2**31 bytes
        b"\x80\x04}(K\x01u.",
        b"",
        b".",
        b"garbage",
    ],
)
def test_a_pickle_that_bursts_is_refused(data: bytes) -> None:
    try:
        found = inert.read_inert(data, where="x")
    except (CorruptCheckpointError, UnsafeCheckpointError):
        return
    assert isinstance(found, list | type(None))


@settings(deadline=None)
@given(data=st.data())
def test_damaged_metadata_is_refused_or_read_but_never_raises_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    encoded = bytearray(shard_metadata({"a.b": (2, 3)}, "00c0ffee00c0ffee", 5))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "step_1"
    path.mkdir()
    (path / layout.SHARD_METADATA).write_bytes(encoded)
    (path / layout.TRAIN_STATE).touch()
    assert main(["verify", str(path), "--json"]) in (0, 1)


def test_a_small_file_that_grows_without_end_is_read_to_its_size(tmp_path: Path) -> None:
    assert MOST_READ_BYTES < 1 << 30
    path = save(tmp_path, 1)
    with (path / layout.METADATA).open("ab") as file:
        file.truncate(MOST_READ_BYTES + 1)
    assert set(look_at(tmp_path, path)) <= {0, 1, 2}


def test_files_that_vanish_while_they_are_listed_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, 1)
    genuine = os.stat

    def vanish(name: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(name).endswith(SHARD):
            (path / SHARD).unlink(missing_ok=True)
        return genuine(name, *args, **options)

    monkeypatch.setattr(os, "stat", vanish)
    assert set(look_at(tmp_path, path)) <= {0, 1, 2}


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A directory of someone who may not read everything, as root may."""
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        if before == 0:
            os.chown(name, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield Path(name)
        os.seteuid(before)


@pytest.mark.parametrize("closed", [".", "step_1", "step_1/manifest.json", "step_1/__0_0.distcp"])
def test_what_may_not_be_read_is_said_and_is_no_damage(nobody: Path, closed: str) -> None:
    path = save(nobody, 1)
    mode = (nobody / closed).stat().st_mode
    (nobody / closed).chmod(0)
    try:
        assert set(look_at(nobody, path)) <= {0, 4}
        assert main(["verify", "--deep", str(path)]) == 4
    finally:
        (nobody / closed).chmod(mode)
