"""What there is to draw of a spec: its parts with their facts and parameters, its stack of layers, and how blocks wire them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from llamazoo.contract.component import Component, LayerSpec
from llamazoo.contract.facts import phrase
from llamazoo.contract.kinds import Attention, Block, Position
from llamazoo.contract.wiring import Residual, Wiring
from llamazoo.decoder import Decoder
from llamazoo.diagram.runs import Group, Run, in_short
from llamazoo.errors import PluginError, ResourceLimitError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.part import dump_part

__all__ = ["Layer", "Scene", "Shown", "scene_of"]

DETAILS = ("norm", "activation", "kernel")  # kinds that are told among the facts of the part that holds them


@dataclass(frozen=True)
class Shown:
    """One part: its name and kind, what is told of it, its parameters (those within included), and the parts within."""

    name: str
    kind: str
    facts: tuple[str, ...]
    parameters: int
    inner: tuple["Shown", ...] = ()
    role: str = ""  # what it is within another part, where its kind does not say so: shared


@dataclass(frozen=True)
class Layer:
    """One sort of layer; `wiring` is None where its block does not tell it."""

    label: str  # what sets this sort apart from the others; empty if there is only one
    count: int
    block: str
    parameters: int
    parts: dict[str, Shown]
    wiring: Wiring | None


@dataclass(frozen=True)
class Scene:
    """All of a model. `stack` is from the first layer to the last; its numbers are places in `layers`."""

    title: str
    widths: tuple[tuple[str, int], ...]
    parameters: int
    before: tuple[Shown, ...]  # the embedding, and positions that act on it
    layers: tuple[Layer, ...]
    stack: tuple[Run | Group, ...]
    after: tuple[Shown, ...]  # the final norm and the head


def scene_of(spec: ArchitectureSpec, title: str | None = None) -> Scene:
    """Look at a spec; builds one layer of each sort on the meta device. PluginError where a block tells a wiring that it has not."""
    firsts, runs = _stack(spec)
    try:
        with torch.device("meta"):
            model = Decoder(spec, only=firsts)
    except (RuntimeError, OverflowError) as error:
        raise ResourceLimitError(
            f"a tensor of this model has more bytes than can be counted (2**63): {str(error).splitlines()[0]}"
        ) from None
    labels = _labels([spec.layer(first) for first in firsts], spec)
    counts = [sum(run.count for run in runs if run.sort == sort) for sort in range(len(firsts))]
    layers = tuple(_layer(*each) for each in zip(model.blocks, labels, counts, strict=True))
    # A position is drawn by itself if it acts by itself, or has parameters, which all layers share.
    positions = (_shown(p) for p in model.positions.values() if isinstance(p, Position) and ("embed" in p.acts() or _numel(p)))
    before = (_shown(model.embedding), *positions)
    tied = {id(p) for p in model.embedding.parameters()}
    own = sum(p.numel() for p in model.head.parameters() if p.requires_grad and id(p) not in tied)
    after = (_shown(model.final_norm), replace(_shown(model.head), parameters=own))
    site = spec.site()
    return Scene(
        title=spec.source or "a model" if title is None else title,
        widths=(("context", site.max_seq_len), ("d", site.dim), ("v", site.vocab_size)),
        parameters=sum(part.parameters for part in (*before, *after)) + sum(layer.count * layer.parameters for layer in layers),
        before=before,
        layers=layers,
        stack=tuple(in_short(runs)),
        after=after,
    )


def _stack(spec: ArchitectureSpec) -> tuple[list[int], list[Run]]:
    """The first layer of each sort, and the runs of the stack. Two layers are of one sort if all their parts are equal."""
    if not spec.layers:
        return [0], [Run(0, spec.n_layers)]
    sorts: dict[str, int] = {}
    firsts, runs = list[int](), list[Run]()
    resolved: dict[int, str] = {}
    for number in range(spec.n_layers):
        layer = spec.layer(number)
        key = resolved.setdefault(id(layer), _key(layer))
        sort = sorts.setdefault(key, len(sorts))
        if sort == len(firsts):
            firsts.append(number)
        if runs and runs[-1].sort == sort:
            runs[-1] = Run(sort, runs[-1].count + 1)
        else:
            runs.append(Run(sort, 1))
    return firsts, runs


def _key(layer: LayerSpec) -> str:
    return repr([layer.position, *(dump_part(part) for part in (layer.block, layer.attention, layer.feed_forward, layer.norm))])


def _labels(layers: list[LayerSpec], spec: ArchitectureSpec) -> list[str]:
    """What sets each sort apart from the others, in as few words as do: the first aspects that tell more of them apart."""
    told = [dict(_aspects(layer, spec)) for layer in layers]
    labels: list[tuple[str, ...]] = [() for _ in layers]
    for aspect in dict.fromkeys(name for each in told for name in each):
        finer = [(*label, each.get(aspect, "")) for label, each in zip(labels, told, strict=True)]
        if len(set(finer)) > len(set(labels)):
            labels = finer
    return [", ".join(word for word in label if word) for label in labels]


def _aspects(layer: LayerSpec, spec: ArchitectureSpec) -> Iterator[tuple[str, str]]:
    """What may be said of a layer, the coarse before the fine."""
    if spec.positions:
        yield "position", layer.position
    parts = {"attention": layer.attention, "feed_forward": layer.feed_forward, "block": layer.block, "norm": layer.norm}
    yield from ((field, part.component.name) for field, part in parts.items())
    for field, part in parts.items():
        for name, value in part.options.model_dump(mode="json").items():
            yield f"{field}.{name}", phrase(name.replace("_", " "), value)


def _layer(block: nn.Module, label: str, count: int) -> Layer:
    assert isinstance(block, Block)
    parts = {attribute: _shown(child) for attribute, child in block.named_children() if isinstance(child, Component)}
    wiring = block.wiring()
    if wiring is not None:
        told = [part for item in wiring for part in (item.parts if isinstance(item, Residual) else (item,))]
        if sorted(told) != sorted(parts):
            found = f"tells a wiring of {', '.join(sorted(told)) or 'nothing'}, and has the parts {', '.join(sorted(parts)) or 'none'}"
            raise PluginError(f"the block {block.name!r} {found}; wiring() names the attributes that hold the parts, each once")
    return Layer(label, count, block.name, _numel(block), parts, wiring)


def _shown(part: nn.Module) -> Shown:
    assert isinstance(part, Component)
    facts = part.facts()
    if isinstance(part, Attention):
        facts = [*facts, *_position(part)]
    inner = tuple(
        replace(_shown(child), role="" if role in (child.kind, child.name) else role.replace("_", " "))
        for role, child in _within(part)
        if child.kind not in DETAILS and _numel(child)
    )
    return Shown(part.name, part.kind, tuple(facts), _numel(part), inner)


def _position(part: Attention) -> Iterator[str]:
    """The position that an attention carries out."""
    position = part.place.position
    if position.acts() & part.honours:
        yield ", ".join([f"position {position.name}", *position.facts()])


def _within(module: nn.Module) -> Iterator[tuple[str, Component]]:
    """The components directly inside, through modules that are none, and what they are there."""
    for role, child in module.named_children():
        if isinstance(child, Component):
            yield role, child
        else:
            yield from _within(child)


def _numel(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
