"""Finds plugins, holds what they offer by kind and name, and says what is known and what is broken."""

import contextlib
import functools
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pluggy

from llamazoo import discovery
from llamazoo.admission import check_component_class, check_file_class, check_rule, check_zoo_folder, offered, plugin_manager
from llamazoo.contract.component import Component
from llamazoo.discovery import LOCAL, OWN, Broken, Listing, Skipped, is_distribution, is_version, normalized, told
from llamazoo.errors import PluginError, UnknownComponentError
from llamazoo.shelf import Offer, Shelf, nearest, shown

if TYPE_CHECKING:
    from llamazoo.generation.tokenizer import FileTokenizer
    from llamazoo.spec.architecture import ArchitectureSpec
    from llamazoo.weights.checkpoint import Format
    from llamazoo.weights.rule import Rule

__all__ = ["Registry", "default_registry", "register"]

C = TypeVar("C", bound=type[Component])

_now = threading.local()  # whether this thread is loading plugins

# Where a plugin's fault may surface, and does not lie.
OURS = ("<frozen ", *(str(Path(home).parent) + os.sep for home in (__file__, importlib.__file__, pluggy.__file__)))


class Registry:
    """All that plugins offer: components by kind and name; formats, tokenizers and models of the zoo by name; rules for formats."""

    def __init__(self) -> None:
        self._components: dict[str, Shelf[type[Component]]] = {}
        self._formats: Shelf[type[Format]] = Shelf("checkpoint format")
        self._tokenizers: Shelf[type[FileTokenizer]] = Shelf("tokenizer")
        self._zoo: Shelf[Path] = Shelf("model of the zoo")
        self._plugins: list[tuple[str, str, pluggy.PluginManager]] = []
        self.broken: list[Broken] = []
        self.skipped: list[Skipped] = []

    @classmethod
    def from_entry_points(cls) -> Self:
        """All that is installed: entry points are loaded one by one, and one that fails spoils no other."""
        if getattr(_now, "loading", False):
            raise PluginError(
                "a plugin asks for the registry of all plugins while it is loaded itself; llamazoo.Registry.built_in() is there already"
            )
        _now.loading = True
        try:
            return cls._load(discovery.find(discovery.PLUGINS))
        finally:
            _now.loading = False

    @classmethod
    def built_in(cls) -> Self:
        """llamazoo's own parts and nothing else."""
        return cls._load(Listing([each for each in discovery.find(discovery.PLUGINS).found if each.distribution == OWN]))

    @classmethod
    def _load(cls, listing: Listing) -> Self:
        registry = cls()
        registry.skipped, registry.broken = list(listing.skipped), list(listing.broken)
        for each in listing.found:
            try:
                with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints must not spoil what commands print
                    registry.add_plugin(each.load(), each.distribution, each.version)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit, or what a test framework raises to skip, is a fault of the plugin too
                registry.broken.append(Broken(each.distribution, each.version, each.where, _reason(error)))
        return registry

    def add_plugin(self, plugin: object, distribution: str = LOCAL, version: str = "0") -> None:
        """Take in all that a module or object with hook implementations offers, or nothing if any of it is unusable. Raises PluginError."""
        distribution = _checked(distribution, version)
        manager = plugin_manager(plugin, distribution)
        draft = self._copy()
        for component in offered(manager, "llamazoo_components"):
            draft.add(component, distribution, version)
        for form in offered(manager, "llamazoo_formats"):
            check_file_class(form, draft._formats.what)
            draft._formats.add(Offer(form, form.name, distribution, version))
        for tokenizer in offered(manager, "llamazoo_tokenizers"):
            check_file_class(tokenizer, draft._tokenizers.what)
            draft._tokenizers.add(Offer(tokenizer, tokenizer.name, distribution, version))
        for folder in offered(manager, "llamazoo_zoo"):
            for path in check_zoo_folder(folder):
                draft._zoo.add(Offer(path, path.stem, distribution, version))
        draft._plugins.append((distribution, version, manager))
        self.__dict__.update(draft.__dict__)

    def add(self, component: C, distribution: str = LOCAL, version: str = "0") -> C:
        """Offer a component class under its name and aliases; returns it, so that it serves as a decorator too."""
        check_component_class(component)
        distribution = _checked(distribution, version)
        shelf = self._components.get(component.kind, Shelf(component.kind)).copy()
        if distribution == LOCAL:  # a cell run again in a notebook replaces what it made before
            shelf.drop(lambda offer: offer.distribution == LOCAL and offer.value.name == component.name)
        for name, preset in {**component.aliases, component.name: {}}.items():
            shelf.add(Offer(component, name, distribution, version, preset))
        self._components[component.kind] = shelf
        return component

    def extended(self, *components: type[Component], distribution: str = LOCAL) -> "Registry":
        """A copy that offers these components too."""
        twin = self._copy()
        for component in components:
            twin.add(component, distribution)
        return twin

    def find(self, kind: str, name: str) -> Offer[type[Component]]:
        """The component that a spec means by a name, or by distribution/name. Raises UnknownComponentError, DuplicateComponentError."""
        found = self.lookup(kind, name)
        if found is None:
            raise UnknownComponentError(self._unknown(kind, name, self._components.get(kind)))
        return found

    def lookup(self, kind: str, name: str) -> Offer[type[Component]] | None:
        """The same, or None if there is no such component."""
        shelf = self._components.get(kind)
        return None if shelf is None else shelf.find(name)

    def offers(self, kind: str | None = None) -> list[Offer[type[Component]]]:
        """All components that are offered, sorted by kind and name."""
        kinds = sorted(self._components) if kind is None else [kind]
        return [offer for k in kinds if k in self._components for offer in self._components[k]]

    def name_of(self, offer: Offer[type[Component]]) -> str:
        """The shortest name that a spec may ask for an offer by."""
        return self._components[offer.component.kind].name_of(offer)

    def formats(self) -> list["type[Format]"]:
        """All checkpoint formats, llamazoo's own first."""
        return [offer.value for offer in self.format_offers()]

    def format_offers(self) -> list["Offer[type[Format]]"]:
        """The same, each with the distribution that brings it."""
        return sorted(self._formats, key=lambda offer: not offer.is_own)

    def format(self, name: str) -> "type[Format]":
        """The checkpoint format of this name, or of distribution/name. Raises PluginError."""
        found = self._formats.find(name)
        if found is None:
            raise PluginError(self._unknown("checkpoint format", name, self._formats))
        return found.value

    def rules(self, format: str, spec: "ArchitectureSpec") -> list["Rule"]:  # noqa: A002
        """The rows that plugins add to a checkpoint format, for their own parts of a spec. Raises PluginError."""
        found: list[Rule] = []
        for distribution, version, manager in self._plugins:
            if distribution not in spec.distributions:
                continue  # who has no part in a model has no say in how it is stored
            try:
                rules = [rule for given in manager.hook.llamazoo_rules(format=format, spec=spec) for rule in given]
                for rule in rules:
                    check_rule(rule)
            except (Exception, SystemExit) as error:
                raise PluginError(f"{distribution} {version}: llamazoo_rules() failed: {told(error)}") from error
            found += rules
        return found

    def tokenizers(self) -> list["type[FileTokenizer]"]:
        """All tokenizers that stand in files, llamazoo's own first."""
        return [offer.value for offer in self.tokenizer_offers()]

    def tokenizer_offers(self) -> list["Offer[type[FileTokenizer]]"]:
        """The same, each with the distribution that brings it."""
        return sorted(self._tokenizers, key=lambda offer: not offer.is_own)

    def zoo(self) -> list[str]:
        """The names of all models of the zoo."""
        return self._zoo.names()

    def zoo_file(self, name: str) -> Path | None:
        """The spec of a model of the zoo; None if there is none of that name."""
        found = self._zoo.find(name)
        return None if found is None else found.value

    def zoo_source(self, path: Path) -> str | None:
        """How errors call a file of the zoo: zoo/NAME.yaml, of a plugin zoo/DISTRIBUTION/NAME.yaml; None for any other file."""
        found = (offer for offer in self._zoo if offer.value == path)
        return next((f"zoo/{offer.qualified(offer.name)}.yaml" for offer in found), None)

    def is_in_zoo(self, path: Path) -> bool:
        """Whether a file lies in a folder of the zoo."""
        return path.resolve().parent in {folder.resolve() for folder in {offer.value.parent for offer in self._zoo}}

    def versions(self) -> dict[str, str]:
        """The version of each distribution that was loaded."""
        return {distribution: version for distribution, version, _ in self._plugins}

    def everything(self) -> Iterator[tuple[str, Offer[Any]]]:
        """All that is offered, each with what it is: a component by its kind, a format, a tokenizer, a model of the zoo."""
        shelves: Mapping[str, Shelf[Any]] = {
            **self._components,
            "format": self._formats,
            "tokenizer": self._tokenizers,
            "zoo": self._zoo,
        }
        return ((kind, offer) for kind, shelf in shelves.items() for offer in shelf)

    def contents(self) -> dict[str, dict[str, list[str]]]:
        """What each distribution offers: names by kind."""
        found: dict[str, dict[str, list[str]]] = {distribution: {} for distribution in self.versions()}
        for kind, offer in self.everything():
            found.setdefault(offer.distribution, {}).setdefault(kind, []).append(offer.name)
        return found

    def hooks(self, distribution: str) -> set[str]:
        """The hooks that a distribution implements."""
        managers = [manager for name, _, manager in self._plugins if name == normalized(distribution)]
        return {hook.name for manager in managers for plugin in manager.get_plugins() for hook in manager.get_hookcallers(plugin) or ()}

    def absence(self, distribution: str, version: str | None = None) -> str | None:
        """Why a distribution's parts are not here and what would do, or None if they are."""
        name = normalized(distribution)
        if name in self.contents():
            return None
        if name == LOCAL:
            return "was made in code, and exists only in the process that made it; give a registry that has it, or --parts FILE"
        for broken in self.broken:
            if broken.distribution == name:
                return f"is broken: {broken}"
        for skipped in self.skipped:
            if skipped.distribution == name:
                return f"is installed, and {skipped.reason}"
        if not is_distribution(distribution):
            return "is no distribution's name"
        pinned = f"=={version}" if version is not None and is_version(version) else ""
        return f"is not installed; pip install {distribution}{pinned}"

    def unloaded(self) -> list[str]:
        """Lines for an error, on the plugins that were not loaded, since one of them may have what is missing."""
        reasons: dict[str, list[str]] = {}
        for skipped in self.skipped:
            reasons.setdefault(skipped.reason, []).append(skipped.distribution)
        lines = [f"a plugin that could not be loaded may have it: {broken}" for broken in self.broken]
        return lines + [f"a plugin that is {reason} may have it: {', '.join(names)}" for reason, names in reasons.items()]

    def _unknown(self, what: str, name: str, shelf: "Shelf[Any] | None") -> str:
        distribution, slash, bare = name.rpartition("/")
        if slash and (reason := self.absence(distribution[:200])) is not None:
            return f"no {what} named {shown(name)}: {shown(distribution if normalized(distribution) != LOCAL else bare)} {reason}"
        known, lines = [] if shelf is None else shelf.names(), self.unloaded()
        if slash:
            whose = normalized(distribution)
            known = [] if shelf is None else sorted(offer.qualified(offer.name) for offer in shelf if offer.distribution == whose)
            lines = [f"a part of it could not be loaded: {broken}" for broken in self.broken if broken.distribution == whose]
        near = nearest(name, known)
        message = f"no {what} named {shown(name)}; {near}known: {', '.join(known) or 'none'}"
        if what in self._components and not near and not slash:
            one = f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
            message += f"; {one} of your own comes with --parts FILE (in Python, a registry that has it), another one with its plugin"
        return "\n  ".join([message, *lines])

    def _copy(self) -> "Registry":
        twin = Registry()
        twin._components = {kind: shelf.copy() for kind, shelf in self._components.items()}
        twin._formats, twin._tokenizers, twin._zoo = self._formats.copy(), self._tokenizers.copy(), self._zoo.copy()
        twin._plugins, twin.broken, twin.skipped = list(self._plugins), list(self.broken), list(self.skipped)
        return twin


def _checked(distribution: str, version: str) -> str:
    """A distribution's name as it is compared; PluginError for what cannot stand in a spec."""
    if not is_distribution(distribution) or not is_version(version):
        raise PluginError(f"{shown(distribution)} {shown(version)} is no distribution's name and version")
    return normalized(distribution)


def _reason(error: BaseException) -> str:
    """What went wrong, and where in a stranger's file."""
    if isinstance(error, PluginError):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(OURS)]
    return told(error) + (f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else "")


@functools.cache
def default_registry() -> Registry:
    """The registry of all that is installed, made on first use."""
    registry = Registry.from_entry_points()
    if not registry.offers():
        reasons = "".join(f"\n  {broken}" for broken in registry.broken)
        raise PluginError(f"llamazoo's own components were not found; install it with pip into {sys.prefix}{reasons}")
    return registry


def register(component: C) -> C:
    """Offer a component class in this process, without a package: for notebooks, as a decorator; defined again, it replaces itself."""
    return default_registry().add(component)
