"""Carries out a protocol's requests: rounds over the connections, calls in a worker's thread."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, assert_never

from kempnerforge.checkpoint.protocol.rounds import Rounds
from kempnerforge.checkpoint.protocol.steps import (
    AnswerRanks,
    CollectVotes,
    FinishCall,
    IsStuck,
    Request,
    StartCall,
    Steps,
    StorageCall,
)
from kempnerforge.checkpoint.runtime.worker import StartedCall, Worker, within

__all__ = ["ProtocolRun", "carry_out"]

T = TypeVar("T")


def carry_out(steps: Steps[T], rounds: Rounds, worker: Worker) -> T:
    """Runs a protocol and returns its result.

    Args:
        steps: The protocol.
        rounds: Agreement with the other ranks.
        worker: Makes the calls; remains owned by the caller.
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
                # Drop the references: a result can be large and now belongs to the protocol, and an
                # error's traceback holds this frame.
                value = error = None
            try:
                value = _perform(request, rounds, worker)
            except BaseException as raised:  # noqa: BLE001  # raised in the protocol, at the request
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
    if isinstance(request, IsStuck):
        return worker.stuck
    assert_never(request)


@dataclass(frozen=True, slots=True)
class ProtocolRun(Generic[T]):
    """A protocol together with its rounds and worker; to be run once, in any thread."""

    steps: Steps[T]
    rounds: Rounds
    worker: Worker
    """Closed when the job ends."""

    def run(self) -> T:
        """Runs the protocol and returns its result."""
        with self.worker:
            return carry_out(self.steps, self.rounds, self.worker)
