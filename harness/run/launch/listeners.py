"""Combines the listeners of several shims into one.

The kernel numbers the calls of each listener separately, so they are renumbered here. They are
received one after the other, so that the calls of all ranks still have one order.
"""

from __future__ import annotations

import select

from harness.system.seccomp import Listener, Notification


class Listeners:
    """Acts as one `Listener`, from the first shim of a run to the end of the last."""

    def __init__(self) -> None:
        self._any = select.epoll()
        self.descriptor = self._any.fileno()
        self._open: dict[int, Listener] = {}
        self._asked: dict[int, tuple[Listener, int]] = {}
        self._last = 0

    def add(self, descriptor: int) -> None:
        """Add a listener, whose descriptor belongs to this object from now on."""
        self._open[descriptor] = Listener(descriptor)
        self._any.register(descriptor, select.EPOLLIN)

    def receive(self) -> Notification | None:
        """Returns the next waiting call; None if its thread died, or if no call waits."""
        for descriptor, event in self._any.poll(0, 1):
            listener = self._open[descriptor]
            if not event & select.EPOLLIN:
                # Its shim has ended. It stays open: an answer can still be on its way.
                self._any.unregister(descriptor)
                return None
            found = listener.receive()
            if found is None:
                return None
            self._last += 1
            self._asked[self._last] = (listener, found.id)
            return found._replace(id=self._last)
        return None

    def answer(self, notification: Notification, value: int) -> None:
        """Return `value` to the caller; a negative value is minus an errno."""
        listener, asked = self._take(notification)
        listener.answer(asked, value)

    def proceed(self, notification: Notification) -> None:
        """Let the kernel carry out the call unchanged."""
        listener, asked = self._take(notification)
        listener.proceed(asked)

    def answer_with_descriptor(
        self, notification: Notification, own: int, *, number: int, close_on_exec: bool
    ) -> None:
        """Give the caller a duplicate of the supervisor's `own` descriptor as `number`."""
        listener, asked = self._take(notification)
        listener.answer_with_descriptor(asked, own, number=number, close_on_exec=close_on_exec)

    def close(self) -> None:
        """Close all of them."""
        for listener in self._open.values():
            listener.close()
        self._any.close()

    def _take(self, notification: Notification) -> tuple[Listener, Notification]:
        listener, number = self._asked.pop(notification.id)
        return listener, notification._replace(id=number)
