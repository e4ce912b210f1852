"""SIGTERM while a run is under way: it ends at the next place where it is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EXIT_STATUS", "Stop", "stopping"]

EXIT_STATUS = 128 + signal.SIGTERM


class Stop:
    """Whether the run was asked to end."""

    asked = False


@contextmanager
def stopping() -> Iterator[Stop]:
    """Listen for SIGTERM while the block runs, and end the program behind it if it was asked to and went on.

    Outside a program's main thread nobody can listen, and nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
        if stop.asked:
            raise SystemExit(EXIT_STATUS)
