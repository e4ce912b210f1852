"""The code that a run follows from: a result is not taken for that of a part which was edited since."""

from importlib import metadata

from torch import nn

from llamazoo.contract.component import Component
from llamazoo.contract.source import Source, source_of
from llamazoo.discovery import OWN
from llamazoo.errors import PluginError

__all__ = ["code_of", "refuse_edited"]

PACKAGES = ("llamazoo", "torch")


def code_of(model: nn.Module) -> dict[str, str]:
    """Versions of what is installed, and a hash of the source file of each part that comes from elsewhere than llamazoo.

    Of the file as it was imported, whatever it says by now. A part without a file (of a notebook, a prompt, exec) has a random number
    for it, another one for each class.
    """
    found: dict[str, set[str]] = {name: {metadata.version(name)} for name in PACKAGES}
    for part, source in _sources(model).items():
        found.setdefault(_called(part, source), set()).add(source.digest)
    return {name: " ".join(sorted(each)) for name, each in found.items()}


def _called(part: type[Component], source: Source) -> str:
    """A file by its own name: a module's depends on how a process came to it (__main__, or a file of parts)."""
    if source.file is None:
        return f"{part.kind} {part.__qualname__}"
    return source.file.name if source.file.stem != "__init__" else f"{source.file.parent.name}/{source.file.name}"


def refuse_edited(model: nn.Module) -> None:
    """Raise PluginError if the file of a part says something else by now: what runs would not be what stands there."""
    for source in _sources(model).values():
        if source.edited:
            raise PluginError(f"{source.file}: was edited after it was imported; start Python anew, or import it again")


def _sources(model: nn.Module) -> dict[type[Component], Source]:
    parts = dict.fromkeys(type(module) for module in model.modules() if isinstance(module, Component))
    return {part: source_of(part) for part in parts if part.__module__.partition(".")[0] != OWN}
