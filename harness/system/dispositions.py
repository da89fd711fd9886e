"""Signal dispositions of the ranks: those of a job that a terminal starts, whatever started us."""

from __future__ import annotations

import signal

_RESTORED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def restore_dispositions() -> None:
    """Gives ignored signals their default handling, in this process and what it forks.

    `nohup`, a shell's background jobs and some CI runners start processes with signals ignored, and
    every child inherits that: a rank would not notice Ctrl-C, and the strike would prove nothing.
    """
    for number in _RESTORED:
        if signal.getsignal(number) == signal.SIG_IGN:
            # As the interpreter does at its start where SIGINT is not ignored.
            interrupts = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)
