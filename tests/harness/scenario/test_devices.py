"""GPUs are counted without torch: those of the driver that nothing hides."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario import devices


def test_a_gpu_counts_when_the_driver_lists_it_and_its_device_is_there(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"proc/driver/nvidia/gpus/0000:0{number}:00.0").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    assert devices.gpus_of_the_driver(tmp_path) == 0
    for name in ("nvidia0", "nvidia2", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    assert devices.gpus_of_the_driver(tmp_path) == 2


def test_nvidia_smi_is_asked_where_the_driver_lists_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.gpus_of_the_driver(tmp_path) == 1
    command.unlink()
    assert devices.gpus_of_the_driver(tmp_path) == 0


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, "0 1 2 3"),
        ("0,2", "0 2"),
        ("", ""),
        ("-1", ""),
        ("1,-1,2", "1"),
        ("0,1,2,3,4,5", "0 1 2 3"),
        ("GPU-8a, 3", "GPU-8a 3"),
    ],
)
def test_gpus_have_the_names_that_the_environment_gives_and_hidden_ones_none(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert devices.not_hidden(4) == tuple(seen.split())
