"""Which files of a result hold named values: what `reading.py` has a reader for."""

from __future__ import annotations

from pathlib import Path

TORCH = (".pt", ".pth", ".ckpt", ".bin")
SAFETENSORS = (".safetensors",)
NUMPY = (".npz", ".npy")
DCP_METADATA = ".metadata"


def is_dcp(path: str) -> bool:
    """Whether a folder is one that torch's DCP has written."""
    return Path(path, DCP_METADATA).exists()


def is_readable(path: str) -> bool:
    """Whether a file or folder holds named values, and not bytes only."""
    return is_dcp(path) or Path(path).suffix in (*TORCH, *SAFETENSORS, *NUMPY)
