"""How a run is ended: by a SIGTERM, at the next place where it is whole, and not by what a part raises to end the program."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from llamazoo.discovery import told
from llamazoo.errors import TrainingError

__all__ = ["EXIT_STATUS", "Stop", "Stopped", "staying", "stopping"]

EXIT_STATUS = 128 + signal.SIGTERM


class Stopped(SystemExit):
    """The program ends as it was asked to by a SIGTERM."""


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
            raise Stopped(EXIT_STATUS)


@contextmanager
def staying() -> Iterator[None]:
    """Raise TrainingError for what a part raises to end the whole program; Ctrl-C and SIGTERM end it as they should."""
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit, Stopped):
        raise
    except BaseException as error:  # SystemExit too: the program would end as if it had done what it was asked to
        raise TrainingError(f"a part tried to end the program ({told(error)}); raise an error in place of that") from error
