"""Components straight from Python files, for trying them before they are a package."""

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from llamazoo.contract.component import Component
from llamazoo.contract.source import digest_of
from llamazoo.errors import DuplicateComponentError, PluginError
from llamazoo.registry import Registry, default_registry

__all__ = ["registry_with"]


_executed: dict[str, tuple[Path, str]] = {}  # by a module's name: its file, and a hash of what stood there


def registry_with(files: Sequence[Path] | None) -> Registry:
    """The registry of all that is installed and of the components in these files. Raises PluginError.

    A file that was executed before, and says the same, is not executed again: its classes are those of then.
    """
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


class _AsItStands(SourceFileLoader):
    """Compiles what stands in a file, never what was compiled before: that is known by its size and by the second of the last change."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _module(path: Path, name: str) -> ModuleType:
    if not path.exists():
        raise PluginError(f"{path}: there is no such file; --parts takes a Python file that defines components")
    place = str(path.absolute())  # what tracebacks call it, wherever the program is by then
    spec = importlib.util.spec_from_file_location(name, place, loader=_AsItStands(name, place))
    if spec is None or spec.loader is None or path.suffix not in SOURCE_SUFFIXES or not path.is_file():
        raise PluginError(f"{path}: is no Python file; --parts takes one that defines components")
    try:
        known = path.resolve(), digest_of(path)
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error.strerror}") from None
    if name in sys.modules and _executed.get(name) == known:
        return sys.modules[name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations in it are looked up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
        where = f"line {lines[-1]}: " if lines else ""
        raise PluginError(f"{path}: {where}{type(error).__name__}: {error}") from error
    _executed[name] = known
    return module
