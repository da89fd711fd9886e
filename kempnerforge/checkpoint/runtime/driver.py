"""Carries out what a protocol asks for: rounds over the connections, calls in a worker's thread."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kempnerforge.checkpoint.protocol.rounds import Rounds
from kempnerforge.checkpoint.protocol.steps import (
    AnswerRanks,
    CollectVotes,
    FinishCall,
    Request,
    StartCall,
    Steps,
    StorageCall,
)
from kempnerforge.checkpoint.runtime.worker import StartedCall, Worker, within

__all__ = ["ProtocolRun", "carry_out"]

T = TypeVar("T")


def carry_out(steps: Steps[T], rounds: Rounds, worker: Worker) -> T:
    """The result of a protocol.

    Args:
        steps: The protocol.
        rounds: Agreement with the other ranks.
        worker: Makes the calls; stays with the caller.
    """
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                request = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                # A result is the protocol's alone now, and may be large; an error's traceback holds
                # this frame.
                value = error = None
            try:
                value = _perform(request, rounds, worker)
            except BaseException as raised:  # noqa: BLE001  # raised where it was asked for
                error = raised
    finally:
        del steps


def _perform(request: Request, rounds: Rounds, worker: Worker) -> Any:
    if isinstance(request, CollectVotes):
        return rounds.collect(request.vote, timeout_s=request.timeout_s)
    if isinstance(request, AnswerRanks):
        return rounds.answer(request.replies, timeout_s=request.timeout_s)
    if isinstance(request, StorageCall):
        return worker.run(request.make, timeout_s=request.timeout_s, doing=request.doing)
    if isinstance(request, StartCall):
        timeout_s = request.timeout_s
        return worker.start(request.make if timeout_s is None else within(timeout_s, request.make))
    if isinstance(request, FinishCall):
        started = request.started
        assert isinstance(started, StartedCall)
        return started.result(timeout_s=request.timeout_s, doing=request.doing)
    return worker.stuck


@dataclass(frozen=True, slots=True)
class ProtocolRun(Generic[T]):
    """A protocol with what carries it out; to be run once, in any one thread."""

    steps: Steps[T]
    rounds: Rounds
    worker: Worker
    """Closed when the job ends."""

    def run(self) -> T:
        """The result of the protocol."""
        with self.worker:
            return carry_out(self.steps, self.rounds, self.worker)
