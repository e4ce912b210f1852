"""Finds plugins, holds what they offer by kind and name, and says what is known and what is broken."""

import difflib
import functools
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pluggy

from llamazoo import hooks
from llamazoo.contract.component import Component
from llamazoo.errors import DuplicateComponentError, PluginError, UnknownComponentError

if TYPE_CHECKING:
    from llamazoo.weights.checkpoint import Format

__all__ = ["Broken", "Offer", "Registry", "default_registry", "nearest"]

OWN = "llamazoo"
LOCAL = "local"  # the distribution of classes that were handed over in code


@dataclass(frozen=True)
class Offer:
    """A component class under one of its names, and the distribution that brings it."""

    component: type[Component]
    name: str
    preset: Mapping[str, Any]  # the options that an alias stands for
    distribution: str
    version: str


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    distribution: str
    version: str
    entry_point: str
    reason: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point}): {self.reason}"


class Registry:
    """Components by kind and name, formats by name. Built-in names cannot be shadowed; a name offered twice must be qualified."""

    def __init__(self) -> None:
        self._offers: dict[str, dict[str, list[Offer]]] = {}
        self._formats: dict[str, type[Format]] = {}
        self.broken: list[Broken] = []

    @classmethod
    def from_entry_points(cls) -> Self:
        """All that is installed: entry points are loaded one by one, and one that fails spoils no other."""
        registry = cls()
        points = importlib.metadata.entry_points(group=hooks.GROUP)
        for point in sorted(points, key=lambda p: (p.dist is None or p.dist.name != OWN, p.dist.name if p.dist else "", p.name)):
            distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")
            try:
                registry.add_plugin(point.load(), distribution, version)
            except (Exception, SystemExit) as error:
                reason = f"{type(error).__name__}: {error}"
                registry.broken.append(Broken(distribution, version, f"{point.name} = {point.value}", reason))
        return registry

    def add_plugin(self, plugin: object, distribution: str, version: str = "0") -> None:
        """Take in all that a module or object with hook implementations offers; PluginError if it offers nothing usable."""
        manager = pluggy.PluginManager("llamazoo")
        manager.add_hookspecs(hooks)
        manager.register(plugin, name=distribution)
        manager.check_pending()  # a misspelt hook is an error, not silence
        if not manager.get_hookcallers(plugin):
            raise PluginError(f"{plugin!r} implements no hook of llamazoo; mark a function llamazoo_components() with @llamazoo.hookimpl")
        components = [c for found in manager.hook.llamazoo_components() for c in found]
        formats = [f for found in manager.hook.llamazoo_formats() for f in found]
        for component in components:
            _check_class(component)
        for component in components:
            self.add(component, distribution, version)
        for form in formats:
            if form.name in self._formats:
                raise PluginError(f"the checkpoint format {form.name!r} exists already: {self._formats[form.name].__module__}")
            self._formats[form.name] = form

    def add(self, component: type[Component], distribution: str = LOCAL, version: str = "0") -> None:
        """Offer a component class under its name and aliases."""
        _check_class(component)
        for name, preset in {component.name: {}, **component.aliases}.items():
            offers = self._offers.setdefault(component.kind, {}).setdefault(name, [])
            if distribution == LOCAL:  # a cell run again in a notebook replaces what it made before
                offers[:] = [o for o in offers if o.distribution != LOCAL]
            if any(o.distribution == distribution for o in offers):
                raise DuplicateComponentError(f"{distribution} {version} offers the {component.kind} {name!r} twice")
            offers.append(Offer(component, name, preset, distribution, version))

    def extended(self, *components: type[Component], distribution: str = LOCAL) -> "Registry":
        """A copy that offers these components too."""
        twin = Registry()
        for offer in self.offers():
            twin._offers.setdefault(offer.component.kind, {}).setdefault(offer.name, []).append(offer)
        twin._formats = dict(self._formats)
        twin.broken = list(self.broken)
        for component in components:
            twin.add(component, distribution)
        return twin

    def find(self, kind: str, name: str) -> Offer:
        """The offer that a spec means by a name, or by distribution/name."""
        known = self._offers.get(kind, {})
        distribution, _, bare = name.rpartition("/")
        offers = [o for o in known.get(bare, []) if not distribution or o.distribution == distribution]
        own = [o for o in offers if o.distribution == OWN]
        if own and not distribution:
            return own[0]
        if len(offers) == 1:
            return offers[0]
        if offers:
            sources = " and ".join(f"{o.distribution} {o.version}" for o in offers)
            names = " or ".join(f"{o.distribution}/{bare}" for o in offers)
            raise DuplicateComponentError(f"{kind} {bare!r} is offered by {sources}; ask for {names}")
        raise UnknownComponentError(self._unknown(kind, name))

    def _unknown(self, kind: str, name: str) -> str:
        known = sorted(self._offers.get(kind, {}))
        message = f"no {kind} named {_shown(name)}; {nearest(name, known)}known: {', '.join(known) or 'none'}"
        if self.broken:
            message += "".join(f"\n  a plugin that could not be loaded may have it: {broken}" for broken in self.broken)
        return message

    def offers(self, kind: str | None = None) -> list[Offer]:
        """All offers, sorted by kind and name."""
        kinds: Iterable[str] = sorted(self._offers) if kind is None else [kind]
        return [o for k in kinds for name in sorted(self._offers.get(k, {})) for o in self._offers[k][name]]

    def formats(self) -> dict[str, "type[Format]"]:
        return dict(self._formats)

    def format(self, name: str) -> "type[Format]":
        """The checkpoint format of this name."""
        if name not in self._formats:
            raise PluginError(
                f"no checkpoint format named {_shown(name)}; {nearest(name, self._formats)}known: {', '.join(sorted(self._formats))}"
            )
        return self._formats[name]


def _check_class(component: object) -> None:
    if not (isinstance(component, type) and issubclass(component, Component)):
        raise PluginError(f"{component!r} is no component class; derive it from llamazoo.Norm, llamazoo.Attention or another kind")
    for attribute in ("kind", "name"):
        if not isinstance(getattr(component, attribute, None), str):
            raise PluginError(f'{component.__module__}.{component.__qualname__} has no {attribute}; set `{attribute} = "..."` in the class')


def _shown(name: str) -> str:
    """A name from a file, for an error: look-alike letters and control characters visible, length bounded."""
    return ascii(name if len(name) <= 60 else name[:60] + "...")


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean ...? ' if something known is near, else nothing."""
    found = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"did you mean {found[0]!r}? " if found else ""


@functools.cache
def default_registry() -> Registry:
    """The registry of all that is installed, made on first use."""
    registry = Registry.from_entry_points()
    if not registry.offers():
        reasons = "".join(f"\n  {broken}" for broken in registry.broken)
        raise PluginError(f"llamazoo's own components were not found; install it with pip into {sys.prefix}{reasons}")
    return registry
