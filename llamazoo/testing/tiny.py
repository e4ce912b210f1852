"""The tiny model that a component is tried in.

b batch, t tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from llamazoo.build import build_model
from llamazoo.contract.component import Component, Part
from llamazoo.contract.kinds import Attention
from llamazoo.decoder import Decoder
from llamazoo.errors import ConformanceError, PluginError
from llamazoo.registry import Registry, default_registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import load_spec
from llamazoo.spec.patch import merge
from llamazoo.testing.surroundings import held_by_all

__all__ = ["BASE", "TOKENS", "Subject", "at_once", "padded", "subject"]

TOKENS = 24

# A LLaMA as small as its parts allow, with two layers, so that one feeds another; grouped heads; an odd vocabulary.
BASE: dict[str, Any] = {
    "vocab_size": 37,
    "dim": 24,
    "hidden_dim": 20,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 8,
    "max_seq_len": 512,
    "init": {"std": 0.3},
    "norm": "rmsnorm",
    "position": "rope",
    "attention": "multihead",
    "feed_forward": "swiglu",
}


@dataclass(frozen=True)
class Subject:
    """A spec in which the component under test stands, and what to call it."""

    name: str
    spec: ArchitectureSpec
    registry: Registry
    component: type[Component]
    options: Mapping[str, Any] = field(default_factory=dict)  # as the user wrote them
    around: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, Any] = field(default_factory=dict)  # what its class and module held when the subject was made

    def model(self, dtype: torch.dtype = torch.float64) -> Decoder:
        """A fresh model; equal each time."""
        return build_model(self.spec, dtype=dtype, device="cpu", registry=self.registry).eval()

    def tokens(self, batch: int = 2, length: int = TOKENS, *, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.spec.vocab_size, (batch, length), generator=generator)

    def with_options(self, **changes: Any) -> "Subject":
        """The same with other options of the component. Raises SpecError."""
        return subject(self.component, {**self.options, **changes}, around=self.around, registry=self.registry)

    def with_spec(self, **changes: Any) -> Self:
        """The same in a spec with these changes. Raises SpecError."""
        return replace(self, spec=load_spec(self.spec, changes, registry=self.registry))

    def one_layer(self) -> "Subject":
        """The same in one layer, where layers do not differ: for what takes long."""
        around = {**self.around, "n_layers": 1}
        return self if self.spec.layers else subject(self.component, self.options, around=around, registry=self.registry)

    def part(self) -> Part:
        """The component under test with its options, as the spec holds it."""
        options = self.component.Options.model_validate(dict(self.options), context={"registry": self.registry})
        return Part(self.component, options, _name(self.component, self.registry))

    def instances(self, model: Decoder) -> dict[str, Component]:
        """Where the component stands in a model."""
        return {path: module for path, module in model.named_modules() if type(module) is self.component}


def subject(
    component: type[Component],
    options: Mapping[str, Any] | None = None,
    *,
    around: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> Subject:
    """The tiny spec with the component in its place.

    `options` are its own; `around` changes the spec, as an override would; `registry` knows the parts that it needs
    besides those installed. Raises SpecError if the component refuses to stand there.
    """
    if not (isinstance(component, type) and issubclass(component, Component)):
        raise PluginError(
            f"expected a component class, found {component!r}; derive it from llamazoo.Norm, llamazoo.Attention or another kind"
        )
    registry = registry or default_registry()
    if not any(offer.component is component for offer in registry.offers(component.kind)):
        registry = registry.extended(component, distribution="under-test")
    part = {"type": _name(component, registry), **(options or {})}
    data = merge(BASE, {**_place(component, part), **(around or {})})
    spec = load_spec(data, registry=registry)
    name, held = f"{component.kind} {component.name}", held_by_all(component)
    return Subject(name, spec, registry, component, dict(options or {}), dict(around or {}), held)


def _name(component: type[Component], registry: Registry) -> str:
    """A name that means this very class, whatever else is offered under its own."""
    offers = [offer for offer in registry.offers(component.kind) if offer.name == component.name]
    mine = next(offer for offer in offers if offer.component is component)
    return mine.name if len(offers) == 1 else f"{mine.distribution}/{mine.name}"


def _place(component: type[Component], part: dict[str, Any]) -> dict[str, Any]:
    """The change to a spec that puts a part of this kind into it."""
    kind = component.kind
    if kind == "activation":
        return {"feed_forward": {"type": "mlp", "activation": part}}
    if kind == "kernel":
        return {"attention": {"type": "multihead", "kernel": part}}
    if kind == "router":
        return {"feed_forward": {"type": "experts", "router": part}}
    if issubclass(component, Attention) and "rotate" not in component.honours:
        return {"attention": part, "position": "alibi" if "bias" in component.honours else "none"}
    if kind in ("norm", "feed_forward", "position", "attention", "block", "embedding", "head"):
        return {kind: part}
    raise ConformanceError(f"llamazoo.testing does not know where a component of the kind {kind!r} stands")


def at_once(model: Decoder, tokens: Tensor, capacity: int) -> Tensor:
    """What one call on a new state of this capacity gives: what several calls on such a state are compared with. [b t v]

    A call without a state has another horizon, and a position may follow from that.
    """
    return model(tokens, state=model.new_state(len(tokens), capacity, chunk=capacity))


def padded(rows: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows as one tensor with padding of token 1, and where it is not padding. [b t]"""
    width = max(map(len, rows)) + 2
    tokens = torch.ones(len(rows), width, dtype=torch.int64)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        begin = {"right": 0, "left": width - len(row), "both sides": (width - len(row)) // 2}[side]
        tokens[i, begin : begin + len(row)] = row
        valid[i, begin : begin + len(row)] = True
    return tokens, valid
