"""Which file a class was made from, and what stood in it then: a file may be edited while the class lives on."""

import hashlib
import inspect
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import NamedTuple
from weakref import WeakKeyDictionary

__all__ = ["Source", "digest_of", "note", "source_of"]

OWN = __name__.partition(".")[0]


class Source(NamedTuple):
    """Where a class comes from."""

    file: Path | None
    """None if it was typed or made: at a prompt, in a notebook, by exec."""
    digest: str
    """16 hexadecimal digits of the file as the class was made; random where there is none, for nothing tells two such classes apart."""

    @property
    def edited(self) -> bool:
        """Whether there is something else in the file by now."""
        return self.file is not None and self.file.is_file() and digest_of(self.file) != self.digest


_noted: WeakKeyDictionary[type, Source] = WeakKeyDictionary()


def note(made: type) -> None:
    """Remember where a class comes from, as it is made; llamazoo's own are known by its version."""
    if made.__module__.partition(".")[0] != OWN:
        _noted[made] = _found(made)


def source_of(made: type) -> Source:
    """Where a class comes from; equal for the same class as long as it lives."""
    if made not in _noted:
        _noted[made] = _found(made)
    return _noted[made]


def digest_of(file: Path) -> str:
    """16 hexadecimal digits of all that stands in a file. Raises OSError."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _found(made: type) -> Source:
    file = _file_of(made)
    try:
        return Source(file, digest_of(file)) if file is not None else Source(None, secrets.token_hex(8))
    except OSError:
        return Source(None, secrets.token_hex(8))


def _file_of(made: type) -> Path | None:
    """The file of its module, unless its functions were compiled from something else: exec leaves a module's name with what it makes."""
    named = getattr(sys.modules.get(made.__module__), "__file__", None)
    if not isinstance(named, str) or not Path(named).is_file():
        return None
    file = Path(named).absolute()
    for function in _functions(made):
        origin = function.__code__.co_filename
        if origin.startswith("<") or (file.suffix == ".py" and Path(origin).resolve() != file.resolve()):
            return None
    return file


def _functions(made: type) -> Iterator[FunctionType]:
    """Those that stand in a class's body, and not what a decorator or an assignment put in their place."""
    for name, value in vars(made).items():
        for held in (value.fget, value.fset) if isinstance(value, property) else (value,):
            if isinstance(held, FunctionType | classmethod | staticmethod):
                function: object = inspect.unwrap(held if isinstance(held, FunctionType) else held.__func__)
                if isinstance(function, FunctionType) and function.__qualname__ == f"{made.__qualname__}.{name}":
                    yield function
