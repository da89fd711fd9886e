"""The trace of one run, kept in memory until the run is over; the bytes of its writes are not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from harness.evidence.operation import Fired, Operation
from harness.run.request import Gift, Request
from harness.run.strikes import Occasion
from harness.run.written import Written


@dataclass(slots=True)
class Trace:
    """Operations, strikes and positions of records, in the one order of the run."""

    places: list[list[int]]
    written: Written
    operations: list[Operation] = field(default_factory=list)
    fired: list[Fired] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Returns the time since the run began."""
        return time.monotonic() - self.started

    def record(self, rank: int) -> None:
        """Note that a rank wrote a record here."""
        self.places[rank].append(len(self.operations))

    def strike(
        self,
        strike: str,
        ranks: tuple[int, ...],
        then: Literal["killed", "healed", "ended", "signalled"] | None = None,
    ) -> None:
        """Note that a strike hit these ranks here, or that a consequence of it did."""
        index, time_s = len(self.operations), self.seconds()
        self.fired.append(Fired(strike=strike, index=index, time_s=time_s, ranks=ranks, then=then))

    def before(self, request: Request) -> None:
        """Save the bytes that the request is about to overwrite or cut off."""
        if request.changes is None:
            return
        begin = request.offset if request.kind == "write" else request.size
        end = begin + request.size if request.kind == "write" else None
        self.written.before_change(request.changes, begin, end)

    def operation(
        self, request: Request, occasion: Occasion, *, thread: int, result: int | Gift
    ) -> None:
        """Note an operation that was carried out or refused; a negative result is minus errno."""
        data, size = None, request.size
        error = -result if isinstance(result, int) and result < 0 else 0
        if request.kind == "write" and isinstance(result, int) and not error:
            data, size = self._keep(request, result), result
        self.operations.append(
            Operation(
                index=len(self.operations),
                time_s=self.seconds(),
                rank=occasion.rank,
                thread=thread,
                kind=request.kind,
                path=request.path,
                target=request.target,
                offset=request.offset,
                size=size,
                data=data,
                opened=request.opened,
                creates=request.creates,
                truncates=request.truncates,
                error=error,
                save=occasion.save,
                phase=occasion.phase,
            )
        )

    def _keep(self, request: Request, size: int) -> int:
        large = request.large
        if large is None:
            return self.written.add(request.data[:size])
        return self.written.leave(
            large.own, request.offset, size, digest=large.digest.digest(), path=request.path
        )
