"""The folder `kempnerforge/checkpoint` alone, copied over another package of that name."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kempnerforge.checkpoint
from kempnerforge.cli.__main__ import main

FOLDER = Path(kempnerforge.checkpoint.__file__).parent

SCHEMA = """
from dataclasses import dataclass, field
from enum import StrEnum


class AsyncCheckpointMode(StrEnum):
    disabled = "disabled"
    async_ = "async"
    async_pinned = "async_with_pinned_mem"


@dataclass
class CheckpointConfig:
    dir: str = "checkpoints"
    interval: int = 1000
    dyn_ckpt_window: object = None
    async_mode: AsyncCheckpointMode = AsyncCheckpointMode.disabled
    keep_last_n: int = 3
    load_path: str | None = None
    export_dtype: str = "bfloat16"
    exclude_from_loading: list[str] = field(default_factory=list)
    ignore_freeze_mismatch: bool = False

    def should_save(self, step):
        return step > 0 and step % self.interval == 0

    def is_dynamic_milestone(self, step):
        return False
"""

LOOP = '''
import sys
from enum import Enum

import torch

from kempnerforge.checkpoint import AsyncCheckpointer, CheckpointManager, restore_train_state
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from kempnerforge.training.loop import NAME


class Other(Enum):
    """Equal values, another class."""

    disabled = "disabled"
    async_ = "async"
    async_pinned = "async_with_pinned_mem"


def manager(mode):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    config = CheckpointConfig(dir=sys.argv[1], async_mode=mode)
    return CheckpointManager(config, model, optimizer), model, optimizer


assert NAME == "their own training"
assert restore_train_state({}) == (0, 0, {})
step = 0
for mode in (*AsyncCheckpointMode, *Other):
    saving, model, optimizer = manager(mode)
    model(torch.ones(4)).sum().backward()
    optimizer.step()
    step += 1
    saving.save(step, tokens_seen=10 * step, extra={"phase": 2})
    saving.wait()
    expected = model.weight.clone()
    del saving
    loading, model, optimizer = manager(mode)
    assert loading.peek_saved_step() == step
    assert loading.load() == (step, 10 * step, {"phase": 2})
    assert torch.equal(model.weight, expected)
    assert AsyncCheckpointer(mode).mode == AsyncCheckpointMode(mode.value)
assert AsyncCheckpointer().mode is AsyncCheckpointMode.disabled
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Somebody else's package, with a `config` and a `training` of its own, and our folder."""
    root = tmp_path / "theirs" / "kempnerforge"
    shutil.copytree(FOLDER, root / "checkpoint", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in (
        ("__init__.py", ""),
        ("config/__init__.py", ""),
        ("config/schema.py", SCHEMA),
        ("training/__init__.py", ""),
        ("training/loop.py", 'NAME = "their own training"\n'),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


WITHOUT_ZLIB_NG = "import sys; sys.modules['zlib_ng'] = None\n"


@pytest.mark.parametrize("before", ["", WITHOUT_ZLIB_NG], ids=["as it is", "without zlib-ng"])
def test_the_folder_saves_and_loads_with_a_config_that_has_the_documented_fields_alone(
    package: Path, tmp_path: Path, before: str
) -> None:
    script = tmp_path / "loop.py"
    script.write_text(before + LOOP)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "checkpoints")],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_6")
    for step in (4, 5, 6):  # those that are kept
        check = ["verify", "--deep", str(tmp_path / "checkpoints" / f"step_{step}")]
        assert main(check) == 0


def test_the_folder_imports_nothing_else_of_the_package_than_the_documented_schema() -> None:
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    outside = {
        name for name in found if re.match(r"kempnerforge\.(?!checkpoint\b)", f"{name}.")
    }  # fmt: skip
    assert outside == {"kempnerforge.config.schema.AsyncCheckpointMode"}
