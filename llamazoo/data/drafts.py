"""Folders that are being written: each is held by a lock, so that what a killed process left can be told and removed.

A draft is a folder beside the one that it becomes, `.NAME-xxxxxxxx`, with the files `held` and `machine` and the folder `made`. Its
process keeps `held` locked, and the system lets go of a lock when its process ends, however it ends; a process number would say
nothing on another machine, and may be someone else's by now. On a file system that machines share, locks may be known to one machine
only. So `machine` names it, and the draft of another is removed only when nothing in it has changed for a day.
"""

import contextlib
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock

__all__ = ["draft_of", "remove_left"]

HELD, MACHINE, MADE = "held", "machine", "made"
DAY: Final = 24 * 60 * 60


@contextlib.contextmanager
def draft_of(folder: Path) -> Iterator[Path]:
    """An empty folder to be filled and renamed to `folder`; what is left of it goes at the end. Raises OSError."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with FileLock(draft / HELD):
            (draft / MACHINE).write_text(platform.node(), encoding="utf-8")  # once it is locked: who finds no name waits for a day
            (draft / MADE).mkdir()
            yield draft / MADE
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_left(folder: Path) -> None:
    """Remove the drafts of `folder` that no living process holds."""
    name = re.compile(re.escape(f".{folder.name}-") + "[a-z0-9_]{8}")
    with contextlib.suppress(OSError):  # a folder that may be written to and not listed
        for draft in [path for path in folder.parent.iterdir() if name.fullmatch(path.name)]:
            with contextlib.suppress(OSError):  # another process may remove it too, or it is another user's
                _remove_if_left(draft)


def _remove_if_left(draft: Path) -> None:
    old = time.time() - max(path.lstat().st_mtime for path in (draft, *draft.rglob("*"))) > DAY
    here = (draft / MACHINE).is_file() and (draft / MACHINE).read_text(encoding="utf-8") == platform.node()
    if old or here:
        with FileLock(draft / HELD, timeout=0):  # an OSError if it is held
            shutil.rmtree(draft)
