"""The command line, explanations and the demo: the interface for operators."""

from __future__ import annotations

import signal


def main() -> None:
    """Run a command; until its code is imported, an interrupt ends the process at once, without a traceback."""
    # Otherwise the process that started it ignores interrupts, or a program that calls this has a handler of its own.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from console.cli import main as command

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()
