"""One process trains in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from llamazoo.errors import TrainingError

__all__ = ["claimed"]

LOCK = "lock"


@contextmanager
def claimed(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make a run's folder, and be the only one at it while the block runs; the system takes back the claim of a process that dies.

    Who has a claim may make another within it. Raises TrainingError if another process has it, unless told to `wait` until that is
    through, and if the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock((folder / LOCK).resolve(), is_singleton=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        told = "another process is training here; wait until it is through, end it, or choose another folder"
        raise TrainingError(f"{folder}: {told}") from None
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise TrainingError(f"{str(folder)!r}: cannot be written to ({why}); choose another folder") from None
    try:
        yield
    finally:
        lock.release()
