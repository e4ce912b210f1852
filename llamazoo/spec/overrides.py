"""Overrides: dotted paths made into maps, and laid over a file as its user wrote it."""

from collections.abc import Iterable, Mapping
from typing import Any

from llamazoo.errors import Problem, SpecError
from llamazoo.spec.patch import merge
from llamazoo.spec.problems import shown

__all__ = ["changed", "undot"]

Path = tuple[str, ...]


def undot(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """{"position.theta": 1} -> {"position": {"theta": 1}}; two that clash are refused."""
    return _nested((tuple(key.split(".")), value) for key, value in _checked(overrides).items())


def changed(data: Mapping[str, Any], overrides: Mapping[str, Any], spec: str, changes: str | None = None) -> dict[str, Any]:
    """Overrides over a file that has a spec in the field `spec`, and in `changes` maps of changes to it by name, none of them read yet.

    There they merge as under `extends`: a name is the map that it stands for, so that to set what is within a part, or a model, keeps
    which one it is. Elsewhere `{}` empties a map of the file and null takes it out. Raises SpecError for an override of what is within
    any other value.
    """
    given = [(_steps(key, data), value) for key, value in _checked(overrides).items()]
    change = _nested(given, spec)
    if isinstance(overrides.get(spec), str):  # another model, not a change to what stands there
        data = {name: value for name, value in data.items() if name != spec}
    opened = _opened(data, change, (), spec, changes)
    merged: dict[str, Any] = merge(opened, change)
    for path, value in given:
        if value in (None, {}) and path[0] != spec and not (path[0] == changes and len(path) > 2):
            _emptied(merged, data, path, value)
    return merged


def _emptied(merged: dict[str, Any], written: Any, path: Path, value: Any) -> None:
    """Where the file has a map at a path, nothing of it stays: nor its name, if the value is null."""
    *outer, last = path
    for name in outer:
        merged, written = merged[name], written.get(name) if isinstance(written, Mapping) else None
    if isinstance(written, Mapping) and isinstance(written.get(last), Mapping):
        if value is None:
            del merged[last]
        else:
            merged[last] = {}


def _checked(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(overrides, Mapping):
        raise SpecError(f"overrides are a map from fields to values, found {shown(overrides)}")
    for key in overrides:
        if not isinstance(key, str):
            raise SpecError(f"an override is a name or a dotted path, found {shown(key)}")
    return overrides


def _steps(key: str, data: Any) -> Path:
    """The names on the way to what a dotted key means in a file, where a name may have dots itself."""
    words, steps = key.split("."), []
    while words:
        known = data if isinstance(data, Mapping) else {}
        count = next((n for n in range(len(words), 1, -1) if ".".join(words[:n]) in known), 1)
        steps.append(".".join(words[:count]))
        words, data = words[count:], known.get(steps[-1])
    return tuple(steps)


def _nested(given: Iterable[tuple[Path, Any]], spec: str | None = None) -> dict[str, Any]:
    """Values by their paths as maps within maps; a name beside what is within it is a part's, or in the field `spec` a model's."""
    result: dict[str, Any] = {}
    for path, value in given:
        inner, key = result, ".".join(path)
        for number, name in enumerate(path[:-1]):
            if isinstance(inner.get(name), str):  # norm=layernorm, then norm.eps=1e-3
                inner[name] = _named(inner[name], path[: number + 1], spec)
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise SpecError(f"the override {key!r} reaches into {name!r}, which another override sets")
        last = path[-1]
        if isinstance(value, str) and isinstance(inner.get(last), dict):  # norm.eps=1e-3, then norm=layernorm
            value = _named(value, path, spec)
        _put(inner, last, value, key)
    return result


def _named(name: str, path: Path, spec: str | None) -> dict[str, Any]:
    return {"extends" if path == (spec,) else "type": name}


def _put(inner: dict[str, Any], last: str, value: Any, key: str) -> None:
    if isinstance(value, Mapping) and isinstance(inner.setdefault(last, {}), dict):
        for name, each in value.items():
            _put(inner[last], name, each, key)
    elif last in inner:
        raise SpecError(f"the override {key!r} clashes with another one")
    else:
        inner[last] = value


def _opened(written: Any, change: Any, path: Path, spec: str, changes: str | None) -> Any:
    """What is written, with a map in place of each name of which something within is changed."""
    if not isinstance(change, Mapping) or written is None:
        return written
    if isinstance(written, str) and (path[:1] == (spec,) or (path[:1] == (changes,) and len(path) > 2)):
        return _named(written, path, spec)
    if not isinstance(written, Mapping):
        raise SpecError(Problem(path, f"is {shown(written)}, which has nothing within it to change; give all of it anew"))
    return {name: _opened(value, change.get(name), (*path, name), spec, changes) for name, value in written.items()}
