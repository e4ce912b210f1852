"""Packages that only some uses of llamazoo need, each of an extra of its own."""

import importlib
from typing import Any

from llamazoo.errors import UnsupportedError

__all__ = ["optional"]


def optional(module: str, extra: str) -> Any:
    """A module of a package that may not be installed. Raises UnsupportedError, which names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnsupportedError(f"this needs {module.split('.')[0]} ({error}): pip install 'llamazoo[{extra}]'") from None
