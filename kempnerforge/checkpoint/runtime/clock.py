"""The clock of this machine."""

import time
from contextlib import AbstractContextManager

from kempnerforge.checkpoint.runtime.worker import impatient, seconds_left

__all__ = ["SystemClock"]


class SystemClock:
    """Real time; :mod:`worker` knows how much of it the current call has left."""

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def seconds_left(self) -> float:
        return seconds_left()

    def impatient(self) -> AbstractContextManager[None]:
        return impatient()
