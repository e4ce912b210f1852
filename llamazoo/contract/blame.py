"""Where in a traceback the code of a part begins, and where it was when something failed."""

import traceback as reading
from types import FrameType, TracebackType

from llamazoo.contract.component import Component

__all__ = ["failed_at", "within_part"]

AROUND = ("llamazoo", "torch")  # which call a part, and which a part calls


def within_part(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first call of a part on that comes from elsewhere than llamazoo; None if it has no such call."""
    while traceback is not None and not _is_of_part(traceback.tb_frame):
        traceback = traceback.tb_next
    return traceback


def failed_at(error: BaseException) -> str | None:
    """The last line of a part from elsewhere than llamazoo that an error went through, "norm.py:12, in forward"; None if there is none."""
    found = None
    for frame, line in reading.walk_tb(within_part(error.__traceback__)):
        if _is_foreign(str(frame.f_globals.get("__name__"))):
            found = f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return found


def _is_of_part(frame: FrameType) -> bool:
    first = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[: frame.f_code.co_argcount][:1]]
    where = str(frame.f_globals.get("__name__"))
    return any(isinstance(each, Component) and _is_foreign(type(each).__module__) for each in first) and _is_foreign(where)


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in AROUND
