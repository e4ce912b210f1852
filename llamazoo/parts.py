"""Components straight from Python files, for trying them before they are a package."""

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from llamazoo.contract.component import Component
from llamazoo.errors import DuplicateComponentError, PluginError
from llamazoo.registry import Registry, default_registry

__all__ = ["registry_with"]


def registry_with(files: Sequence[Path] | None) -> Registry:
    """The registry of all that is installed and of the components in these files. Raises PluginError."""
    seen: dict[tuple[str, str], Path] = {}
    components = []
    for number, path in enumerate(files or ()):
        for component in _components(_module(path, f"llamazoo_parts_{number}_{path.stem}"), path):
            key = component.kind, component.name
            if key in seen:
                raise DuplicateComponentError(f"{path}: the {key[0]} {key[1]!r} is defined twice, first in {seen[key]}")
            seen[key] = path
            components.append(component)
    return default_registry().extended(*components) if components else default_registry()


def _components(module: ModuleType, path: Path) -> list[type[Component]]:
    """The component classes that a module defines under a name of their own, not those that it imports or only derives from."""
    mine = (c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Component) and c.__module__ == module.__name__)
    found = [c for c in dict.fromkeys(mine) if isinstance(vars(c).get("name"), str)]
    if not found:
        raise PluginError(f'{path}: has no component class with a name; derive one from llamazoo.Norm, say, and set `name = "..."`')
    return found


def _module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PluginError(f"{path}: is no Python file; --parts takes one that defines components")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations in it are looked up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"line {lines[-1]}: " if lines else ""
        raise PluginError(f"{path}: {where}{type(error).__name__}: {error}") from error
    return module
