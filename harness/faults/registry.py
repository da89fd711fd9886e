"""Every fault that there is. A new one is a module of this package and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Discriminator, Tag

from harness.faults.base import Fault
from harness.faults.by_hand import ByHand
from harness.faults.cut_link import CutLink
from harness.faults.delay import Delay
from harness.faults.exit_ import Exit
from harness.faults.fail import Fail
from harness.faults.hang import Hang
from harness.faults.interrupt import Interrupt
from harness.faults.kill import Kill
from harness.faults.power_cut import PowerCut
from harness.faults.raise_ import Raise
from harness.faults.second_job import SecondJob
from harness.faults.short_write import ShortWrite
from harness.faults.sigterm import Sigterm
from harness.faults.slow_link import SlowLink
from harness.faults.stop import Stop
from harness.faults.time_limit import TimeLimit

KINDS: tuple[type[Fault], ...] = (
    Kill,
    Sigterm,
    Stop,
    Fail,
    ShortWrite,
    Delay,
    Hang,
    Raise,
    Exit,
    PowerCut,
    SecondJob,
    ByHand,
    CutLink,
    SlowLink,
    TimeLimit,
    Interrupt,
)

FAULTS = tuple(kind.word for kind in KINDS)
"""Their words; one of these is a key of every entry of `faults`."""


def _one_fault(value: Any) -> Any:
    if isinstance(value, dict) and len(value.keys() & set(FAULTS)) > 1:
        raise ValueError(f"one entry of `faults` holds one fault: {' or '.join(FAULTS)}")
    return value


def _tag(value: Any) -> str | None:
    """The tag of the union below; no key of a file looks like one, so no error is misplaced."""
    if isinstance(value, Fault):
        return f"<{value.word}>"
    named = [word for word in FAULTS if isinstance(value, dict) and word in value]
    return f"<{named[0]}>" if named else None


if TYPE_CHECKING:
    AnyFault = Fault
else:
    AnyFault = Annotated[
        Annotated[
            Union[tuple(Annotated[kind, Tag(f"<{kind.word}>")] for kind in KINDS)],  # noqa: UP007
            Discriminator(
                _tag,
                custom_error_type="unknown_fault",
                custom_error_message="an entry of `faults` names a fault",
            ),
        ],
        BeforeValidator(_one_fault),
    ]
"""One of them, as a field of a model: told apart by its word."""
