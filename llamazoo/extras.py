"""Packages that only some uses of llamazoo need, each of an extra of its own."""

import importlib
from importlib.util import find_spec
from typing import Any

from llamazoo.errors import UnsupportedError

__all__ = ["expected", "optional"]


def optional(module: str, extra: str) -> Any:
    """A module of a package that may not be installed. Raises UnsupportedError, which names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnsupportedError(f"this needs {module.split('.')[0]} ({error}): pip install 'llamazoo[{extra}]'") from None


def expected(package: str, extra: str) -> None:
    """Raise UnsupportedError unless a package is installed that is imported only when it is needed, since that takes seconds."""
    if find_spec(package) is None:
        raise UnsupportedError(f"this needs {package}: pip install 'llamazoo[{extra}]'")
