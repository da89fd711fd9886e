"""Digests of what result files hold: each tensor's bytes, and every other value as text.

It runs in a process forked from the command's server, because the files can hold objects of the
command's own classes, and reading them runs their code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from harness.jobs.command import files

Values = dict[str, str]


def read_values(path: str) -> Values:
    """Returns the values of a file or of a DCP folder by name; raises what the readers raise."""
    if files.is_dcp(path):
        return dict(_walk("", _read_dcp(path)))
    reader = _READERS.get(Path(path).suffix, _read_bytes)
    return dict(_walk("", reader(path)))


def _read_torch(path: str) -> Any:
    import torch

    # The tensors of a zip archive stay on the disk until each is digested.
    return torch.load(path, map_location="cpu", weights_only=False, mmap=is_zipfile(path))


def _read_safetensors(path: str) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _read_numpy(path: str) -> Any:
    import numpy

    found = numpy.load(path, allow_pickle=True)
    return dict(found) if hasattr(found, "files") else found


def _read_dcp(path: str) -> Any:
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    found: dict[str, Any] = {}
    _load_state_dict(
        found,
        storage_reader=FileSystemReader(path),
        planner=_EmptyStateDictLoadPlanner(),  # type: ignore[no-untyped-call]
        no_dist=True,
    )
    return found


def _read_bytes(path: str) -> Any:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(files.TORCH, _read_torch),
    **dict.fromkeys(files.SAFETENSORS, _read_safetensors),
    **dict.fromkeys(files.NUMPY, _read_numpy),
}


def _walk(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key in value:
            yield from _walk(f"{name}.{key}" if name else str(key), value[key])
    elif isinstance(value, (list, tuple)):
        for place, one in enumerate(value):
            yield from _walk(f"{name}.{place}", one)
    elif hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        yield name, _of_tensor(value)
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
        yield name, f"{value.dtype}{tuple(value.shape)} {_hashed(value.tobytes())}"
    elif " at 0x" in (text := repr(value)):  # of an object that says nothing more about itself
        attributes = getattr(value, "__dict__", None)
        yield from _walk(name, attributes) if attributes else [(name, _typed(value))]
    else:
        yield name, text


def _of_tensor(tensor: Any) -> str:
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.is_sparse or plain.is_quantized:
        return repr(plain)
    raw = plain.flatten().view(torch.uint8).numpy().data if plain.numel() else b""
    return f"{plain.dtype}{tuple(plain.shape)} {_hashed(raw)}"


def _typed(value: Any) -> str:
    return f"a {type(value).__qualname__}"


def _hashed(raw: bytes | memoryview) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
