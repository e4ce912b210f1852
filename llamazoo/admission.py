"""What may enter the registry: one plugin's hooks and all that they return, checked before anything is taken in."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy

from llamazoo import hooks
from llamazoo.contract.component import Component
from llamazoo.contract.kernel import Kernel
from llamazoo.contract.kinds import Activation, Attention, Block, Embedding, FeedForward, Head, Norm, Position, Router
from llamazoo.contract.options import ComponentOptions
from llamazoo.errors import PluginError
from llamazoo.shelf import is_name, shown

__all__ = ["check_component_class", "check_file_class", "check_rule", "check_zoo_folder", "offered", "plugin_manager"]

KIND = re.compile(r"[a-z][a-z0-9_]{0,59}")
BASES = {base.kind: base for base in (Norm, Activation, FeedForward, Position, Attention, Kernel, Router, Block, Embedding, Head)}
# What is above the registry, and so known by name only.
FORMAT, TOKENIZER, RULE = "llamazoo.weights.checkpoint.Format", "llamazoo.generation.tokenizer.FileTokenizer", "llamazoo.weights.rule.Rule"
UNDECLARED = 1  # the version of the hooks for which a plugin was written that does not say: the first


def plugin_manager(plugin: object, distribution: str) -> pluggy.PluginManager:
    """A plugin on its own, its hooks checked: so that one plugin's fault is told as that plugin's. Raises PluginError."""
    version = getattr(plugin, "llamazoo_hook_version", UNDECLARED)
    if version != hooks.HOOK_VERSION or isinstance(version, bool):
        raise PluginError(
            f"was written for version {version!r} of llamazoo's hooks, this llamazoo has version {hooks.HOOK_VERSION}; "
            "install a version of the plugin that fits"
        )
    manager = pluggy.PluginManager("llamazoo")
    manager.add_hookspecs(hooks)
    known = [name for name in vars(hooks) if name.startswith("llamazoo_")]
    try:
        manager.register(plugin, name=distribution)
        manager.check_pending()  # a misspelt hook is an error, not silence
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = [name for name in known if callable(getattr(plugin, name, None)) and name not in implemented]
    if unmarked:
        raise PluginError(f"{' and '.join(f'{name}()' for name in unmarked)} is no hook without the mark @llamazoo.hookimpl above it")
    if not implemented:
        raise PluginError(f"{plugin!r} implements no hook of llamazoo; mark a function llamazoo_components() with @llamazoo.hookimpl")
    return manager


def offered(manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """All that the plugin returns from a hook that takes no arguments. PluginError for what is no list or other iterable."""
    caller = getattr(manager.hook, hook)
    results = caller()
    if len(results) < len(caller.get_hookimpls()):
        raise PluginError(f"{hook}() returned None; return a list")
    found: list[Any] = []
    for result in results:
        if isinstance(result, str | bytes | Path | Mapping) or not isinstance(result, Iterable):
            raise PluginError(f"{hook}() returned {result!r}; return a list")
        found += result
    return found


def check_component_class(component: object) -> None:
    """PluginError for what is no component class that a spec could name."""
    if not (isinstance(component, type) and issubclass(component, Component)):
        raise PluginError(f"{component!r} is no component class; derive it from llamazoo.Norm, llamazoo.Attention or another kind")
    where, kind = f"{component.__module__}.{component.__qualname__}", getattr(component, "kind", None)
    if not isinstance(kind, str) or not KIND.fullmatch(kind):
        raise PluginError(f"{where} has no kind; derive it from llamazoo.Norm or another kind")
    if not issubclass(component, BASES.get(kind, Component)):
        raise PluginError(f"{where} says that its kind is {kind}; derive it from llamazoo.{BASES[kind].__name__}")
    _check_name(component, kind)
    if not (isinstance(component.Options, type) and issubclass(component.Options, ComponentOptions)):
        raise PluginError(f"the Options of {where} are not derived from llamazoo.ComponentOptions")
    aliases: object = component.aliases
    if not isinstance(aliases, Mapping) or not all(isinstance(preset, Mapping) for preset in aliases.values()):
        raise PluginError(f"the aliases of {where} are not a map from names to maps of options")
    for name, preset in aliases.items():
        if not isinstance(name, str) or not is_name(name):
            raise PluginError(f"{shown(str(name))} cannot name a {kind}; use letters, digits and _ . + -")
        unknown = sorted(map(str, set(preset) - set(component.Options.model_fields)))
        if unknown:
            raise PluginError(f"the alias {name!r} of {where} stands for {', '.join(unknown)}, which is no option of it")


def check_file_class(found: object, what: str) -> None:
    """PluginError for what is no class of a checkpoint format, or of a tokenizer that stands in files."""
    base = FORMAT if what == "checkpoint format" else TOKENIZER
    if not isinstance(found, type) or not _derives(found, base):
        raise PluginError(f"{found!r} is no {what}; derive a class from llamazoo.{base.rpartition('.')[2]}")
    _check_name(found, what)
    where = f"{found.__module__}.{found.__qualname__}"
    if base == FORMAT and not isinstance(getattr(found, "looks_for", None), str):
        raise PluginError(f'{where} does not say what marks it; set `looks_for = "a folder with ..."` in the class')
    files = getattr(found, "files", None)
    if base == TOKENIZER and not (isinstance(files, tuple) and files and all(isinstance(f, str) and is_name(f) for f in files)):
        raise PluginError(f'{where} does not say what its file is called; set `files = ("....model",)` in the class')


def check_zoo_folder(folder: object) -> list[Path]:
    """The specs in a folder for the zoo. PluginError if there is no such folder, or a file's name cannot be asked for."""
    path = Path(folder) if isinstance(folder, str | Path) else None
    if path is None or not path.is_dir():
        raise PluginError(f"llamazoo_zoo() names the folder {str(folder)!a}, and there is none")
    found = sorted(path.glob("*.yaml"))
    for each in found:
        if not is_name(each.stem):
            raise PluginError(f"{shown(each.stem)} cannot name a model of the zoo; use letters, digits and _ . + -")
    return found


def check_rule(rule: object) -> None:
    """PluginError for what is no rule between tensors."""
    if not _derives(type(rule), RULE):
        raise PluginError(f"llamazoo_rules() gave {rule!r}, which is no rule; give llamazoo.Rename, llamazoo.Drop or another llamazoo.Rule")


def _derives(found: type, base: str) -> bool:
    return any(f"{each.__module__}.{each.__qualname__}" == base for each in found.__mro__[1:])


def _check_name(thing: type, what: str) -> None:
    name: object = getattr(thing, "name", None)
    if not isinstance(name, str) or not is_name(name):
        advice = f'set `name = "..."` in the class, of letters, digits and _ . + -; found {shown(str(name))}'
        raise PluginError(f"{thing.__module__}.{thing.__qualname__} has no {what}'s name; {advice}")
