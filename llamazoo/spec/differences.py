"""Where two specs mean different models: what `llamazoo diff` shows, and how formats find out what they would lose.

Layers are compared one by one as they come out, so that two ways to write the same pattern are no difference.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from llamazoo.contract.component import LayerSpec
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.part import dump_part
from llamazoo.spec.patch import LAYER_PARTS

__all__ = ["Difference", "differences"]

# What may differ without a change in what the trained model computes; or in what training makes of it either.
FREE = ("version", "about", "plugins")
OF_TRAINING = ("init", "dtype")
LOSSES = ("feed_forward.balance", "feed_forward.sequence_balance", "feed_forward.z_loss")  # of training
FREE_OPTIONS = ("attention.kernel", "position.layout", *LOSSES)
ABSENT = "not there"
WIDTHS = ("n_kv_heads", "hidden_dim")  # that reach a part through its site

Fields = dict[str, Any]


class Difference(NamedTuple):
    """One field that differs: its dotted path, and what each spec says; `layers` are those that it is about, None: the whole model."""

    path: str
    ours: Any
    theirs: Any
    layers: tuple[int, ...] | None = None

    @property
    def where(self) -> str:
        """The path, after the layers if not all are meant: `layers 0-2, 5: attention.window`."""
        return self.path if self.layers is None else f"layer{'s' * (len(self.layers) > 1)} {_ranges(self.layers)}: {self.path}"

    def __str__(self) -> str:
        return f"{self.where}: {self.ours!r} would become {self.theirs!r}"


def differences(ours: ArchitectureSpec, theirs: ArchitectureSpec, *, training: bool = False) -> list[Difference]:
    """Where two specs mean different models, field by field; where a part is another, only that.

    With `training`, also where they only begin or learn differently: first values, number type, auxiliary losses, kernels.
    """
    here, there = _whole(ours, training), _whole(theirs, training)
    free = () if training else FREE_OPTIONS
    for width in WIDTHS:  # one of them may have it where it arrives, and the other not at all
        if (width in here) != (width in there):
            here.pop(width, None)
            there.pop(width, None)
    found = [Difference(*each) for each in _compared(here, there, free)]
    layers: dict[tuple[str, str, str], list[int]] = {}
    values: dict[tuple[str, str, str], tuple[str, Any, Any]] = {}
    compared: dict[tuple[int, int], list[tuple[str, Any, Any]]] = {}
    known: dict[int, Fields] = {}
    every = min(ours.n_layers, theirs.n_layers)  # of a deeper model, those that the other has too
    for number in range(every):
        mine, other = ours.layer(number), theirs.layer(number)
        pair = id(mine), id(other)  # a spec keeps one LayerSpec for each sort of layer
        if pair not in compared:
            for spec, layer in ((ours, mine), (theirs, other)):
                if id(layer) not in known:
                    known[id(layer)] = _layer(spec, layer)
            compared[pair] = list(_compared(known[pair[0]], known[pair[1]], free))
        for each in compared[pair]:
            key = each[0], repr(each[1]), repr(each[2])
            values[key] = each
            layers.setdefault(key, []).append(number)
    return found + [Difference(*values[key], None if len(numbers) == every else tuple(numbers)) for key, numbers in layers.items()]


def _whole(spec: ArchitectureSpec, training: bool) -> Fields:
    """What is said once for the whole model."""
    apart = (*FREE, *LAYER_PARTS, "layers", "positions", "position", *(() if training else OF_TRAINING))
    data = {name: value for name, value in spec.canonical().items() if name not in apart}
    site = spec.site()
    data.update(head_dim=site.head_dim, final_norm=dump_part(spec.final_norm or spec.norm))
    data.setdefault("bos_id", None)
    data.setdefault("eos_ids", [])
    parts = [spec.layer(number) for number, _ in spec.sorts()]
    # Widths that reach a part through its site are compared where they arrive.
    for width, options in (
        ("n_kv_heads", [layer.attention.options for layer in parts]),
        ("hidden_dim", [layer.feed_forward.options for layer in parts]),
    ):
        data[width] = getattr(site, width)
        if all(hasattr(each, width) for each in options):
            del data[width]
    return data


def _layer(spec: ArchitectureSpec, layer: LayerSpec) -> Fields:
    """What one layer is made of, with what its parts take from the spec filled in."""
    site = spec.site()
    data = {name: dump_part(getattr(layer, name)) for name in LAYER_PARTS}
    data["position"] = dump_part(spec.places()[layer.position])
    inherited: dict[str, Fields] = {"attention": {"n_kv_heads": site.n_kv_heads}, "feed_forward": {"hidden_dim": spec.hidden_dim}}
    if data["attention"]["type"] == "multihead":
        inherited["attention"]["scale"] = site.head_dim**-0.5
    for name, taken in inherited.items():
        data[name].update({field: value for field, value in taken.items() if field in data[name] and data[name][field] is None})
    return data


def _compared(mine: Any, other: Any, free: tuple[str, ...], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if path in free:
        return
    if not (isinstance(mine, dict) and isinstance(other, dict)):
        if mine != other:
            yield path, mine, other
        return
    if mine.get("type") != other.get("type"):  # another part altogether, whose options need not be compared
        yield f"{path}.type", mine.get("type", ABSENT), other.get("type", ABSENT)
        return
    for key in dict.fromkeys([*mine, *other]):
        yield from _compared(mine.get(key, ABSENT), other.get(key, ABSENT), free, f"{path}.{key}" if path else key)


def _ranges(numbers: tuple[int, ...]) -> str:
    """0-2, 5"""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
