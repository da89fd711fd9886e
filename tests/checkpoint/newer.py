"""A manifest in a format that does not exist yet."""

from __future__ import annotations

import json
from pathlib import Path

from zlib_ng import zlib_ng

from kempnerforge.checkpoint.format import layout, manifest


def make_newer(checkpoint: Path, *, number: object = ..., only: tuple[str, ...] = ()) -> None:
    """Give a checkpoint the manifest that a newer version would write, with its checksum.

    Args:
        checkpoint: Of this version.
        number: Of the format; the one after the newest by default.
        only: What is left of the manifest; all by default.
    """
    path = checkpoint / layout.MANIFEST
    body = json.loads(path.read_bytes())["manifest"]
    body = {key: body[key] for key in only or body}
    body["format"] = manifest.READABLE_FORMATS[-1] + 1 if number is ... else number
    body["unheard_of"] = {"sequence": 99}
    encoded = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    crc32 = f"{zlib_ng.crc32(encoded):08x}"
    path.write_bytes(b'{"crc32":"' + crc32.encode() + b'","manifest":' + encoded + b"}\n")
