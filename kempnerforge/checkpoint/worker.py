"""A thread for calls that may never return, so that waiting for them can end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from kempnerforge.checkpoint.errors import StorageTimeoutError

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """One daemon thread that runs one call at a time.

    Its thread is started at construction, because no thread can be started while the interpreter
    shuts down. A call that outlives its deadline keeps the thread; :attr:`stuck` tells.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self.stuck = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], T], *, timeout_s: float, doing: str) -> T:
        """Result of ``call``.

        Raises:
            StorageTimeoutError: It did not return within ``timeout_s`` seconds.
        """
        future: Future[T] = Future()
        self._calls.put((call, future))
        if not wait([future], timeout=timeout_s).done:
            self.stuck = True
            raise StorageTimeoutError(f"{doing} did not finish within {timeout_s:.1f} s")
        return future.result()

    def close(self) -> None:
        """Let the thread end once its call has returned."""
        self._calls.put(None)
        if not self.stuck:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  # travels to the thread that waits for the result
                future.set_exception(error)
            del call, future, item
