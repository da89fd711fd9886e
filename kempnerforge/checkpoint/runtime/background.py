"""A call in the background, in which a save runs."""

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

# Calls whose result was not fetched; their errors are logged when the interpreter exits.
_unfetched: set["BackgroundCall[Any]"] = set()


class BackgroundCall(Generic[T]):
    """One call in a separate thread; its result or error is fetched once.

    The interpreter waits for the thread when it exits, so the call must be bounded in time. An
    error that was not fetched is logged then.
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
        """Waits for the call and returns its result, or raises its error.

        Raises:
            StorageTimeoutError: The call did not return in time; it may still be running.
        """
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            raise StorageTimeoutError(f"{self._thread.name} is still running after its deadline")
        _unfetched.discard(self)
        return self._future.result()

    def report(self) -> None:
        """Logs the error of a call whose result will not be fetched any more."""
        error = self._future.exception() if self._future.done() else None
        if error is not None:
            logger.error(
                "%s failed, and the program did not wait for it: %s", self._thread.name, error
            )

    def _run(self) -> None:
        try:
            self._future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001  # passed to the thread that fetches it
            self._future.set_exception(error)


@atexit.register
def _report_unfetched() -> None:
    for call in _unfetched:
        call.report()
