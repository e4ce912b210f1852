"""Finds a spec by zoo name, file, map or object; follows `extends`; applies overrides."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamazoo.discovery import is_distribution, is_version, normalized
from llamazoo.errors import PluginVersionWarning, Problem, SpecError
from llamazoo.registry import Registry, default_registry
from llamazoo.shelf import nearest
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.naming import resolved
from llamazoo.spec.overrides import undot
from llamazoo.spec.patch import merge
from llamazoo.spec.problems import explain, shown
from llamazoo.spec.yaml import read_yaml_file

__all__ = ["SPEC_FILE", "SpecLike", "load_spec", "parse_spec", "zoo_names"]

SpecLike = str | Path | Mapping[str, Any] | ArchitectureSpec

SPEC_FILE = "llamazoo.yaml"  # the spec in a saved model's folder
VERSION = 1
MAX_CHAIN = 16


def zoo_names(registry: Registry | None = None) -> list[str]:
    """The names of all models in the zoo, those of plugins among them."""
    return (registry or default_registry()).zoo()


def load_spec(
    name_or_path: SpecLike,
    overrides: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    folder: Path | None = None,
) -> ArchitectureSpec:
    """The architecture that a zoo name, a file, a model's folder, a map or a spec stands for, with `overrides` merged over it.

    Names of files count from `folder`, the current one unless given, and a file wins over the zoo. Overrides are a map; a
    dotted key reaches inside (`{"position.theta": 5e5}`), and a part merges or is replaced as under `extends`. Raises SpecError
    with the path to each field that is wrong.
    """
    registry, folder = registry or default_registry(), folder or Path.cwd()
    if isinstance(name_or_path, ArchitectureSpec):
        spec = name_or_path
        if not overrides:
            return spec
        before = spec.canonical()
        return parse_spec(merge(before, named(undot(overrides), registry, before)), registry, source=spec.source)
    if isinstance(name_or_path, Mapping):
        return _compose(dict(name_or_path), None, folder.resolve(), registry, overrides, ())
    if not isinstance(name_or_path, str | Path):
        raise SpecError(f"a spec is a zoo name, a file, a map or an ArchitectureSpec, found {shown(name_or_path)}")
    path = _locate(Path(name_or_path), folder, registry)
    return _compose(_read(path), path, path.parent.resolve(), registry, overrides, (path.resolve(),))


def parse_spec(data: Mapping[str, Any], registry: Registry | None = None, *, source: str | None = None) -> ArchitectureSpec:
    """The spec that plain data stands for, `extends` not allowed."""
    registry = registry or default_registry()
    try:
        spec = ArchitectureSpec.model_validate(_migrated(data, source), context={"registry": registry})
    except ValidationError as error:
        found = explain(error, ArchitectureSpec)
        raise type(found)(*found.problems, *_explanations(data, registry), source=source) from None
    spec._source = source
    for distribution, version in _recorded(data).items():
        if spec.plugins.get(distribution, version) != version:
            told = f"{source or 'the spec'} was made with {distribution} {version}; installed is {spec.plugins[distribution]}"
            warnings.warn(told, PluginVersionWarning, stacklevel=2)
    return spec


def _recorded(data: Mapping[str, Any]) -> dict[str, str]:
    """The plugins, and their versions, that a spec says it was made with."""
    given = data.get("plugins")
    pairs = given.items() if isinstance(given, Mapping) else ()
    known = ((name, version) for name, version in pairs if isinstance(name, str) and isinstance(version, str))
    return {normalized(name): version for name, version in known if is_distribution(name) and is_version(version)}


def _explanations(data: Mapping[str, Any], registry: Registry) -> list[Problem]:
    """Which of those are not here, or here in another version, where something is wrong that this may explain."""
    here, problems = registry.versions(), []
    for name, version in _recorded(data).items():
        reason = registry.absence(name, version)
        if reason is None and here.get(name, version) != version:
            reason = f"is installed as {here[name]}; the spec was made with {version}"
        if reason is not None:
            problems.append(Problem(("plugins", name), f"{name} {reason}"))
    return problems


PARTS = ("norm", "position", "attention", "feed_forward", "block", "embedding", "head")


def named(data: dict[str, Any], registry: Registry, base: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to the spec `base` with every part under its unambiguous name, so that naming what a spec has already merges into it."""
    kinds = {**{kind: kind for kind in PARTS}, "final_norm": "norm"}
    found = {f: resolved(kinds[f], v, registry, base.get(f)) if f in kinds else v for f, v in data.items()}
    positions, before = found.get("positions"), base.get("positions") or {}
    if isinstance(positions, Mapping):
        found["positions"] = {name: resolved("position", v, registry, before.get(name)) for name, v in positions.items()}
    return found


def _compose(
    data: dict[str, Any],
    path: Path | None,
    root: Path,
    registry: Registry,
    overrides: Mapping[str, Any] | None,
    chain: tuple[Path, ...],
) -> ArchitectureSpec:
    source = None if path is None else registry.zoo_source(path) or str(path)
    parent = data.pop("extends", None)
    if parent is not None:
        base = _parent(parent, path, root, registry, chain, source)
        before = base.canonical()
        data = merge(before, named(data, registry, before))
    if overrides:
        before = parse_spec(data, registry, source=source).canonical()
        data = merge(before, named(undot(overrides), registry, before))
    return parse_spec(data, registry, source=source)


def _parent(name: Any, path: Path | None, root: Path, registry: Registry, chain: tuple[Path, ...], source: str | None) -> ArchitectureSpec:
    story = " -> ".join([*(p.name for p in chain), str(name)[:200]])
    if not isinstance(name, str):
        raise SpecError(f"extends: expected a file or a zoo name, found {shown(name)}", source=source)
    if len(chain) > MAX_CHAIN:
        raise SpecError(f"extends: more than {MAX_CHAIN} files deep: {story}", source=source)
    folder = root if path is None else path.parent
    try:
        found = _locate(Path(name), folder, registry)
    except SpecError as error:
        raise type(error)(f"extends: {error.problems[0].message} ({story})", source=source) from None
    real = found.resolve()
    if real in chain:
        raise SpecError(f"extends: goes in a circle: {story}", source=source)
    in_zoo = registry.is_in_zoo(real)
    if not in_zoo and not real.is_relative_to(root):
        raise SpecError(
            f"extends: leaves the folder {root}: {story}; a spec may extend the zoo and files beside or below it", source=source
        )
    inner_root = real.parent if in_zoo else root
    return _compose(_read(found), found, inner_root, registry, None, (*chain, real))


def _locate(name: Path, folder: Path, registry: Registry) -> Path:
    """The file of that name from `folder`, or that of the zoo."""
    try:
        path = folder / name
        if path.is_dir() and (path / SPEC_FILE).is_file():
            return path / SPEC_FILE
        if path.exists() and not path.is_dir():
            return path
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"{shown(str(name))} is no usable file name: {reason}") from None
    wanted = name.as_posix().removesuffix(".yaml")
    in_zoo = registry.zoo_file(wanted)
    if in_zoo is not None:
        return in_zoo
    if path.is_dir():
        raise SpecError(f"the folder {shown(str(name))} has no {SPEC_FILE}, and no model of the zoo has that name")
    zoo = registry.zoo()
    hint = nearest(wanted, zoo) or nearest(name.stem, zoo)
    missing = f"no file and no model of the zoo is named {shown(str(name))}; {hint}the zoo has {', '.join(zoo)}"
    raise SpecError("\n  ".join([missing, *registry.unloaded()]))


def _read(path: Path) -> dict[str, Any]:
    data = read_yaml_file(path)
    if not isinstance(data, dict):
        raise SpecError(f"a spec is a map of fields, found {shown(data)}", source=str(path))
    return data


def _migrated(data: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """The data as this version writes it. Here older versions are brought up to date, one step at a time; there are none yet."""
    version = data.get("version", VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise SpecError(f"version: found {shown(version)}; this llamazoo reads version {VERSION}", source=source)
    return dict(data)
