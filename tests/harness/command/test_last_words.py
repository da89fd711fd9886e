"""Why a command failed is one line of its output, also behind a launcher."""

from __future__ import annotations

import pytest

from harness.run.command.last_words import last_words

TORCHRUN = """\
W1130 13:42:30.206000 8758 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 8774 closing signal SIGTERM
E1130 13:42:30.239000 8758 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {status}) local_rank: 1 (pid: 8777) of binary: /bin/python
Traceback (most recent call last):
    raise ChildFailedError(
============================================================
"""  # noqa: E501
BY_RANK = """\
[rank1]: Traceback (most recent call last):
[rank1]: ValueError: the cause
[rank0]: RuntimeError: Connection closed by peer
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ""),
        ("step 1\nValueError: the cause\n\n", "ValueError: the cause"),
        (BY_RANK + TORCHRUN.format(status=1), "rank 1: ValueError: the cause"),
        ("no checkpoint\n" + TORCHRUN.format(status=1), "rank 1: no checkpoint"),
        ("step 1\n" + TORCHRUN.format(status=-9), "rank 1: it ended with -9"),
    ],
)
def test_the_line_that_says_why(text: str, says: str) -> None:
    assert last_words(text) == says
