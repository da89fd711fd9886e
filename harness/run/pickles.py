"""Makes pickled files run code if they are unpickled carelessly, with their old meaning kept.

The opcodes of a harmless call are put in front of a pickle: it creates a directory, if that does
not exist yet, and drops the result. The old pickle follows, so a careless reader notices nothing,
and a reader with an allow-list meets a name that is not on it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile

_PROTOCOL_2 = b"\x80\x02"


def make_hostile(data: bytes, marker: str) -> bytes:
    """Returns a DCP `.metadata` or a `torch.save` file that creates the directory `marker` when
    read.

    Raises ValueError if `data` is neither.
    """
    if not data.startswith(b"PK"):
        return _hostile_pickle(data, marker)
    out = io.BytesIO()
    pickled = 0
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl"):
                content = _hostile_pickle(content, marker)
                pickled += 1
            new.writestr(zipfile.ZipInfo(member.filename), content)
    if not pickled:
        raise ValueError("the archive holds no pickle")
    return out.getvalue()


def _hostile_pickle(data: bytes, marker: str) -> bytes:
    try:
        for _opcode, _argument, _place in pickletools.genops(data):
            pass
    except Exception as error:  # pickletools can raise anything for a foreign file
        raise ValueError(f"is not a pickle: {error}") from error
    # Without a memo entry: later protocols number their entries by how many there are.
    arguments = pickletools.optimize(pickle.dumps((marker, 0o777, True), protocol=2))
    arguments = arguments.removeprefix(_PROTOCOL_2).removesuffix(pickle.STOP)
    call = pickle.GLOBAL + b"os\nmakedirs\n" + arguments + pickle.REDUCE
    return _PROTOCOL_2 + call + pickle.POP + data
