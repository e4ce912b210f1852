"""The code that a run follows from: a result is not taken for that of a part which was edited since."""

import hashlib
import inspect
from importlib import metadata

from llamazoo.build import build_model
from llamazoo.contract.component import Component
from llamazoo.discovery import OWN
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["code_of"]

PACKAGES = ("llamazoo", "torch")


def code_of(spec: ArchitectureSpec) -> dict[str, str]:
    """Versions of what is installed, and a hash of the source of each part that comes from elsewhere than llamazoo."""
    found = {name: metadata.version(name) for name in PACKAGES}
    for module in build_model(spec, device="meta").modules():
        if isinstance(module, Component) and type(module).__module__.partition(".")[0] != OWN:
            found[f"{type(module).__module__}.{type(module).__qualname__}"] = _digest(type(module))
    return found


def _digest(part: type[Component]) -> str:
    """Of the file that defines a part; of the class alone where there is no file, as in a notebook."""
    try:
        path = inspect.getsourcefile(part)
        with open(path or "", "rb") as file:
            source = file.read()
    except (OSError, TypeError):
        source = _class_source(part).encode()
    return hashlib.sha256(source).hexdigest()[:16]


def _class_source(part: type[Component]) -> str:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        functions = (value for value in vars(part).values() if inspect.isfunction(value))
        return repr([(function.__name__, function.__code__.co_code, function.__code__.co_consts) for function in functions])
