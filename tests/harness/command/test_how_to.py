"""`docs/your-command.md` is followed step by step: its files are written, its commands run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.run.support import missing_disk, missing_mounts
from tests.harness.proving import ROOT

pytestmark = [
    pytest.mark.skipif(missing_mounts() is not None, reason=str(missing_mounts())),
    pytest.mark.skipif(missing_disk("ext4") is not None, reason=str(missing_disk("ext4"))),
    pytest.mark.timeout(900),
]

BLOCK = re.compile(r"^```(\w+) (\S.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return subprocess.run(
        words.replace("{dir}", "'{dir}'"),
        shell=True,
        cwd=folder,
        env={**kept, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_how_to_does_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "your-command.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert [kind for kind, _, _ in blocks].count("sh") == 4
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["harness.pytest_plugin"]\n')
    said = []
    for kind, about, body in blocks:
        if kind != "sh":
            (tmp_path / about).write_text(body)
            continue
        done = run(body, tmp_path)
        assert done.returncode == int(about.removeprefix("exits ")), done.stdout + done.stderr
        said.append(done.stdout)
    shown = re.findall(r"^(?:HARD_FAIL|    first|    states): .*$", text, re.MULTILINE)
    assert len(shown) == 3
    assert all(line in said[0] for line in shown)
    assert said[0].count("    replay: ") == 2
    assert "2 failed" in said[1]
