"""The attributes of values that a chat template may use: some methods of texts, maps and lists, and what a loop tells of itself."""

from collections.abc import Callable, Mapping
from typing import Any

from llamazoo.chat.meter import Meter
from llamazoo.errors import TemplateError

__all__ = ["LOOP", "METHODS", "Method"]

LOOP = frozenset(["index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth", "depth0"])
MAX_WIDTH = 1000
PLAIN = """strip lstrip rstrip startswith endswith upper lower title capitalize removeprefix removesuffix find rfind index count
    partition rpartition swapcase casefold isdigit isalpha isspace isupper islower isnumeric isalnum isdecimal istitle"""


class Method:
    """A method of a value, which can be called and nothing else."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def __call__(self, meter: Meter, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        meter.weigh([self.owner, *arguments, *named.values()])
        kind = next(kind for kind in METHODS if isinstance(self.owner, kind))
        before = METHODS[kind][self.name]
        if before is not None:
            before(meter, self.owner, *arguments, **named)
        made = getattr(kind, self.name)(self.owner, *arguments, **named)
        return meter.weigh(list(made) if kind is dict and self.name != "get" else made)


def _replaced(meter: Meter, text: str, old: str, new: str, count: int = -1) -> None:
    times = text.count(old) if count < 0 else min(count, text.count(old))
    meter.text(len(text) + times * len(new))


def _joined(meter: Meter, text: str, parts: Any) -> None:
    if not isinstance(parts, list | tuple | str):
        raise TemplateError(f"the chat template joins a {type(parts).__name__}; a list is needed")
    meter.text(len(text) * len(parts))


def _split(meter: Meter, text: str, sep: str | None = None, maxsplit: int = -1) -> None:
    meter.spend(len(text.split()) if sep is None else text.count(sep))


def _padded(meter: Meter, text: str, width: int, fill: str = " ") -> None:
    if width > MAX_WIDTH:
        raise TemplateError(f"the chat template pads a text to {width} characters; {MAX_WIDTH} are allowed")


def _lines(meter: Meter, text: str, keepends: bool = False) -> None:
    meter.spend(len(text) // 2)


Before = Callable[..., None] | None
# What each has to pay before, where the result may be larger than what goes in.
METHODS: Mapping[type, Mapping[str, Before]] = {
    str: {
        **dict.fromkeys(PLAIN.split()),
        "replace": _replaced,
        "join": _joined,
        "split": _split,
        "rsplit": _split,
        "splitlines": _lines,
        "center": _padded,
        "ljust": _padded,
        "rjust": _padded,
        "zfill": _padded,
    },
    dict: dict.fromkeys(("items", "keys", "values", "get")),
    list: dict.fromkeys(("index", "count")),
    tuple: dict.fromkeys(("index", "count")),
}
