"""A process whose peer has ended receives the last messages of it, and then nothing."""

from __future__ import annotations

import os
import socket

import pytest

from harness.run.launch.launch import News
from harness.run.launch.local import LocalLaunch
from harness.system.errors import HarnessError
from harness.system.talk import receive, send


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_the_last_messages_of_a_peer_that_ended_with_messages_unread_are_received() -> None:
    link, other = _pair()
    with link:
        send(link, b"stop")
        reading, writing = os.pipe()
        socket.send_fds(other, [b"over"], [reading])
        other.close()

        message, descriptors = receive(link)

        assert (message, len(descriptors)) == (b"over", 1)
        assert receive(link) == (b"", [])
        for descriptor in (reading, writing, *descriptors):
            os.close(descriptor)


def test_all_messages_of_a_job_launcher_that_ends_when_it_is_stopped_are_received() -> None:
    link, other = _pair()
    with link:
        launch = LocalLaunch(link)
        other.send(b'{"over": [], "cpu_s": 1.0}')
        launch.stop()
        other.close()
        launch.stop()

        assert list(launch.receive()) == [News(over=(), cpu_s=1.0)]
        with pytest.raises(HarnessError, match="the job launcher of the run died"):
            list(launch.receive())
