"""Layers that differ, as configs list them one by one and specs patch them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llamazoo.spec.architecture import MOST_PATCHED, ArchitectureSpec
from llamazoo.weights.formats.hf.config import Config
from llamazoo.weights.formats.hf.family import layers_of, option

__all__ = ["FULL", "SLIDES", "counted", "layered", "selectors", "types_of", "windowed"]

FULL, SLIDES = "full_attention", "sliding_attention"  # how configs call layers without and with a window

Parts = Mapping[str, Any]


def counted(config: Config, n_layers: int) -> range:
    """The layers, where something has to be said of each; WeightsError if they are too many for that."""
    if n_layers > MOST_PATCHED:
        raise config.wrong("num_hidden_layers", f"{n_layers} layers are too many to differ; at most {MOST_PATCHED} may")
    return range(n_layers)


def windowed(config: Config, types: Sequence[Any], window: Any, parts: Parts, places: Sequence[str] | None = None) -> dict[str, Any]:
    """`parts`, their attention with the window where the type of the layer says so; `places` name the position of each layer."""
    unknown = [kind for kind in types if kind not in (FULL, SLIDES)]
    if unknown:
        raise config.wrong("layer_types", f"{ascii(unknown[0])[:60]} is not supported; supported: {FULL}, {SLIDES}")
    if SLIDES in types and window is None:
        raise config.wrong("layer_types", f"has {SLIDES}, but the other fields say that there is no window")
    made = [{"attention": {**parts["attention"], "window": window if kind == SLIDES else None}} for kind in types]
    if places is None:
        return {**parts, **layered(made)}
    if len(set(places)) == 1:
        rest = {name: value for name, value in parts.items() if name != "positions"}
        return {**rest, **layered(made), "position": parts["positions"][places[0]]}
    return {**parts, **layered([{**each, "position": name} for each, name in zip(made, places, strict=True)])}


def types_of(spec: ArchitectureSpec) -> tuple[list[str], int | None]:
    """The type of each layer, and the window of those that have one."""
    windows = [option(layer.attention, "window") for layer in layers_of(spec)]
    return [FULL if window is None else SLIDES for window in windows], next((window for window in windows if window is not None), None)


def layered(layers: Sequence[Parts]) -> dict[str, Any]:
    """What each layer is made of, one by one, as a spec says it: the most common for all, and patches for the others."""
    keys = [repr(parts) for parts in layers]
    common = max(dict.fromkeys(keys), key=Counter(keys).__getitem__)
    base = layers[keys.index(common)]
    patches = []
    for key in dict.fromkeys(keys):
        if key == common:
            continue
        numbers = [number for number, other in enumerate(keys) if other == key]
        changes = {name: _change(base[name], value) for name, value in layers[numbers[0]].items() if value != base[name]}
        patches += [{**where, **changes} for where in selectors(numbers, len(layers))]
    return {**base, "layers": patches} if patches else dict(base)


def _change(before: Any, after: Any) -> Any:
    """What a patch has to say: options that differ, or all of another part."""
    if not (isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type")):
        return after
    return {key: after.get(key) for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)}


def selectors(numbers: Sequence[int], n_layers: int) -> list[dict[str, Any]]:
    """How a patch says these layers: `every` and `offset` if they recur to the end, else ranges."""
    if len(numbers) > 1:
        first, every = numbers[0], numbers[1] - numbers[0]
        if every > 1 and list(range(first, n_layers, every)) == list(numbers):
            return [{"every": every, **({"offset": first} if first else {})}]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [{"at": run[0] if len(run) == 1 else f"{run[0]}:{run[-1] + 1}"} for run in runs]
