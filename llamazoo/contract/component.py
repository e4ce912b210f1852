"""The component: one class with a kind, a name, options, shapes, values, and what it computes.

Everything that a built-in part may use is here and in the files beside it; so a plugin may use it too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from llamazoo.contract import split
from llamazoo.contract.draw import Draw
from llamazoo.contract.facts import phrases
from llamazoo.contract.options import ComponentOptions
from llamazoo.contract.source import note
from llamazoo.contract.split import Share, Split
from llamazoo.errors import Problem, SpecError

__all__ = ["Component", "LayerSpec", "Part", "Site", "as_wide_as_float32", "at_least_float32", "nested_parts", "parameter", "refuse"]


@dataclass(frozen=True)
class Part:
    """A component by name with its options, before it is built: what a spec is made of."""

    component: "type[Component]"
    options: ComponentOptions
    type: str  # how a spec asks for it beyond doubt: the name, or distribution/name
    distribution: str = "local"  # what brings the component; "local" if it was made in code
    version: str = "0"

    @property
    def kind(self) -> str:
        return self.component.kind


@dataclass(frozen=True)
class LayerSpec:
    """Which parts one layer is made of."""

    block: Part
    attention: Part
    feed_forward: Part
    norm: Part
    position: str  # the name of one of the model's positions


@dataclass(frozen=True)
class Site:
    """Where a component stands: what the model decided, beside what the user wrote in the options.

    Widths are in features; `layer` is None outside the layers.
    """

    vocab_size: int
    dim: int
    hidden_dim: int | None
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    max_seq_len: int
    layer: int | None = None
    n_experts: int | None = None  # of the mixture that a router stands in
    top_k: int | None = None  # how many of them a token is to be sent to
    place: Any = None  # the layer's Place (see kinds.py): its shared position

    def build(self, part: Part, **changes: Any) -> Any:
        """The component that a part describes, standing here; `changes` replace fields of the site (a norm over one head: dim=head_dim)."""
        return part.component(part.options, replace(self, **changes))


class Component(nn.Module):
    """The base of all parts. A subclass of one of the kinds sets `name`, and that is all the registration it needs.

    `__init__` makes shapes only and may run on the meta device; `reset` gives values to the parameters; `compute` fills
    non-persistent buffers, on whatever device they lie.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    aliases: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # other names, each with the options that it stands for
    wide: ClassVar[frozenset[str]] = frozenset()  # own parameters that stay in at least float32, whatever the model is cast to
    share: Share | None = None  # set where a model is divided among processes, on the components that declare splits

    class Options(ComponentOptions):
        pass

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        note(cls)

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__()
        self.options = options

    @classmethod
    def check(cls, options: Any, site: Site) -> None:
        """Refuse, with SpecError, options that cannot work at this site; called while the spec is validated, before anything is built."""
        for field, part in nested_parts(options):
            try:
                part.component.check(part.options, site)
            except SpecError as error:
                raise error.under(field) from None

    def reset(self, draw: Draw) -> None:
        """Give every parameter owned here its first value. By default: linear layers are normal, their biases zero."""
        for layer in self.owned_modules():
            if isinstance(layer, nn.Linear):
                draw.normal(layer.weight)
                draw.zeros(layer.bias)

    def compute(self) -> None:
        """Fill the buffers that are computed rather than learned: assign each anew, on the device of the old one.

        Called whenever device or dtype have changed; the CPU is the default device meanwhile.
        """

    def refill(self) -> None:
        """`compute`, if there are buffers and they can hold data."""
        buffers = [buffer for module in self.owned_modules() for buffer in module._buffers.values() if buffer is not None]
        if buffers and not any(buffer.is_meta for buffer in buffers):
            with torch.device("cpu"):
                self.compute()

    def splits(self) -> dict[str, Split]:
        """Which of this component's linear layers or parameters may be divided among processes, and how.

        Divided linear layers mark their own input and output; parameters do not, so forward marks them.
        """
        return {}

    def whole(self, x: Tensor) -> Tensor:
        """Mark a whole tensor, or parameter, that enters a computation of which each process does its share."""
        return split.whole(x, self.share)

    def total(self, x: Tensor) -> Tensor:
        """The sum of all processes' x."""
        return split.total(x, self.share)

    def own_heads(self, x: Tensor, dim: int) -> Tensor:
        """This process's share, along `dim`, of a tensor that every process has whole."""
        return split.own_heads(x, dim, self.share)

    def gather(self, x: Tensor, dim: int, width: int | None = None) -> Tensor:
        """All processes' shares joined along `dim`; `width` is that of the whole, if it does not divide evenly."""
        return split.gather(x, dim, self.share, width)

    def inside(self, part: nn.Module, *args: Any) -> Any:
        """Call a whole inner part (a norm over each head) on this process's share of the features; its gradients are summed."""
        if self.share is None:
            return part(*args)
        parameters = {name: self.whole(p) for name, p in part.named_parameters()}
        return torch.func.functional_call(part, parameters, args) if parameters else part(*args)

    def flops(self, context: int) -> int:
        """Floating-point operations for one token that sees `context` tokens, parts inside not counted; by default 2 per matrix element."""
        return sum(2 * p.numel() for module in self.owned_modules() for p in module.parameters(recurse=False) if p.ndim >= 2)

    def idle_parameters(self) -> int:
        """How many of its parameters the computation of one token leaves aside, parts inside not counted; by default none."""
        return 0

    def beyond(self, length: int) -> int:
        """How many of its parameters only texts of more than `length` tokens would use, parts inside not counted; by default none.

        Such as the rows of a table of positions: where training ends at that length, no gradient reaches them.
        """
        return 0

    def facts(self) -> list[str]:
        """What a drawing says of this part below its name, in short phrases; by default, what is not as usual in its options."""
        return self.unusual()

    def unusual(self, *without: str) -> list[str]:
        """The options that are not as usual, and the parts within, as phrases; but not kernels, which all compute the same."""
        parts = dict(nested_parts(self.options))
        kernels = (field for field, inner in parts.items() if inner.kind == "kernel")
        single = {field: _named(inner) for field, inner in parts.items() if isinstance(getattr(self.options, field), Part)}
        return list(phrases(self.options, single, (*without, *kernels)))

    def owned_modules(self) -> Iterator[nn.Module]:
        """This module and those inside it that are not components of their own."""
        pending: list[nn.Module] = [self]
        while pending:
            module = pending.pop()
            yield module
            pending.extend(child for child in module.children() if not isinstance(child, Component))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        exact = {name: held.detach() for name in self.wide if (held := self._parameters.get(name)) is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, values in exact.items():
            held = cast(nn.Parameter, self._parameters[name])
            if held.dtype.itemsize < values.dtype.itemsize and held.dtype != torch.float32:
                held.data = values.to(held.device, at_least_float32(held.dtype))
        # A cast or a move touches buffers too: angles in bfloat16 would be wrong, so they are computed anew.
        self.refill()
        return self


def _named(part: Part) -> str:
    """A part within another: its name, and what is not as usual in its options."""
    told = ", ".join(phrases(part.options, {}, tuple(field for field, _ in nested_parts(part.options))))
    return f"{part.type} ({told})" if told else part.type


def nested_parts(options: ComponentOptions) -> Iterator[tuple[str, Part]]:
    """The parts among a component's options, in lists, maps and models too, with the field that holds each."""
    for field in type(options).model_fields:
        for part in _parts_in(getattr(options, field)):
            yield field, part


def _parts_in(value: object) -> Iterator[Part]:
    if isinstance(value, Part):
        yield value
        return
    inner: Iterable[object] = ()
    if isinstance(value, BaseModel):
        inner = vars(value).values()
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    for each in inner:
        yield from _parts_in(each)


def refuse(*path_and_message: str) -> SpecError:
    """SpecError at a field of the options: refuse("hidden_dim", "what is wrong and what would do")."""
    *path, message = path_and_message
    return SpecError(Problem(tuple(path), message))


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype for norms, softmax, angles and logits: half precision is too coarse, float64 stays."""
    return torch.float64 if dtype == torch.float64 else torch.float32  # promote_types would be an operator in every graph


def parameter(*shape: int) -> nn.Parameter:
    """A parameter without values yet."""
    return nn.Parameter(torch.empty(*shape))


def as_wide_as_float32(x: Tensor) -> Tensor:
    """x itself if it is float32 or float64, else x in float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
