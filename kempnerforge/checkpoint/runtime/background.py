"""A call in the background: the thread of a save under way."""

import atexit
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from kempnerforge.checkpoint.errors import StorageTimeoutError

__all__ = ["BackgroundCall"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Calls whose result nobody has fetched, for the end of the interpreter to speak of.
_unfetched: set["BackgroundCall[Any]"] = set()


class BackgroundCall(Generic[T]):
    """One call in a thread of its own; its result or error is fetched once.

    The interpreter waits for the thread when it ends, so a call must be bounded by itself. An error
    that nobody fetched is logged then.
    """

    def __init__(self, call: Callable[[], T], *, name: str, timeout_s: float) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=False)
        _unfetched.add(self)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the call has not returned yet."""
        return self._thread.is_alive()

    def result(self) -> T:
        """Wait for the call and hand over its result, or raise its error.

        Raises:
            StorageTimeoutError: It did not return in time; it may still be running.
        """
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            raise StorageTimeoutError(f"{self._thread.name} is still running after its deadline")
        _unfetched.discard(self)
        return self._future.result()

    def report(self) -> None:
        """Log the error of a call that nobody will fetch any more."""
        error = self._future.exception() if self._future.done() else None
        if error is not None:
            logger.error("%s failed and nobody waited for it: %s", self._thread.name, error)

    def _run(self) -> None:
        try:
            self._future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001  # travels to the thread that fetches it
            self._future.set_exception(error)


@atexit.register
def _report_unfetched() -> None:
    for call in _unfetched:
        call.report()
