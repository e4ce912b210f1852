"""What a plugin may implement: the hooks of llamazoo, by way of pluggy.

A distribution declares a module in the entry-point group `llamazoo`, and in it functions of these names, marked with `hookimpl`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from llamazoo.contract.component import Component
    from llamazoo.weights.checkpoint import Format

__all__ = ["GROUP", "HOOK_VERSION", "hookimpl", "hookspec"]

GROUP = "llamazoo"
HOOK_VERSION = 1

hookspec = pluggy.HookspecMarker("llamazoo")
hookimpl = pluggy.HookimplMarker("llamazoo")


@hookspec
def llamazoo_components() -> "Iterable[type[Component]]":  # type: ignore[empty-body]
    """Component classes, each with a `kind` (by its base class) and a `name`."""


@hookspec
def llamazoo_formats() -> "Iterable[type[Format]]":  # type: ignore[empty-body]
    """Checkpoint formats that `load_model`, `save_model` and `llamazoo convert` may use."""
