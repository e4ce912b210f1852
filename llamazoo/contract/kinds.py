"""The kinds of component, and what each computes.

b batch, t tokens of this call, s keys to look at, d model width, h heads, k key/value heads, e head width, v vocabulary;
of a mixture of experts: n experts, c of them chosen by a token.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from llamazoo.contract.component import Component, LayerSpec, Site
from llamazoo.contract.kernel import Visible
from llamazoo.contract.options import ComponentOptions
from llamazoo.contract.split import Share, own_heads, whole
from llamazoo.contract.state import State
from llamazoo.contract.step import Step
from llamazoo.contract.wiring import Wiring
from llamazoo.errors import LlamazooError

__all__ = [
    "Activation",
    "Attention",
    "Block",
    "Embedding",
    "FeedForward",
    "Head",
    "Norm",
    "Place",
    "Position",
    "RotaryRows",
    "Router",
    "Routing",
]


class Norm(Component):
    """Rescales features, token by token, over a width of `site.dim`."""

    kind = "norm"

    def forward(self, x: Tensor) -> Tensor:  # [... d] -> [... d]
        raise NotImplementedError


class Activation(Component):
    """A function of single numbers."""

    kind = "activation"

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class FeedForward(Component):
    """Mixes the features of one token. What it returns is added to the residual stream by the block."""

    kind = "feed_forward"

    def forward(self, x: Tensor, step: Step) -> Tensor:  # [b t d] -> [b t d]
        raise NotImplementedError


class Routing(NamedTuple):
    """Which experts each token is sent to, and what that was decided by."""

    experts: Tensor  # [b t c] int64; a token's experts differ from each other
    weights: Tensor  # [b t c] what their outputs are multiplied by, at least float32
    logits: Tensor | None = None  # [b t n] before any softmax or sigmoid, at least float32; None if the choice is not learned
    scores: Tensor | None = None  # [b t n] how much a token likes each expert, not negative; None: the softmax of the logits


class Router(Component):
    """Sends each token to some of `site.n_experts` experts, by what it sees of that token alone.

    How experts compute, what they lose for being used unevenly, and who counts is not the router's affair. [b t d] rather than
    a list of tokens, so that a router may look at the step: at padding, or at where a token stands.
    """

    kind = "router"
    learned: ClassVar[bool] = True  # whether it gives logits, without which there is no auxiliary loss
    correction: nn.Parameter | None  # [n] added to the scores for the choice alone: see llamazoo.correct_load

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        if site.n_experts is None or site.top_k is None:
            raise LlamazooError(f"{type(self).__name__} stands where there are no experts: build it with n_experts= and top_k=")
        self.register_parameter("correction", None)
        self.n_experts: int = site.n_experts
        self.top_k: int = site.top_k  # a router that chooses another number of experts says so here

    def forward(self, x: Tensor, step: Step) -> Routing:  # [b t d]
        raise NotImplementedError


class Position(Component):
    """Tells tokens where they are, in up to three places; each does nothing unless overridden.

    One instance is shared by all layers that name it.
    """

    kind = "position"

    @classmethod
    def acts(cls) -> frozenset[str]:
        """In which of the three places this position does something."""
        return frozenset(act for act in ("embed", "rotate", "bias") if getattr(cls, act) is not getattr(Position, act))

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Any:
        """What depends on the positions [b t] alone, computed once for all layers.

        `horizon` is how many tokens a row may come to hold: the state's capacity, or without one what the longest row of the
        call holds, since it cannot come to hold more. It is the same in every call on one state, so what follows from it is
        too; what follows from the call's own length is not. `dtype` is that of the activations.
        """
        return None

    def embed(self, x: Tensor, at: Any) -> Tensor:
        """Act on the embeddings. [b t d] -> [b t d]"""
        return x

    def rotate(self, q: Tensor, k: Tensor, at: Any) -> tuple[Tensor, Tensor]:
        """Act on queries [b h t e] and keys [b k t e], before the keys are cached."""
        return q, k

    def bias(self, q_order: Tensor, k_order: Tensor) -> Tensor | None:
        """What is added to the scores of queries at `q_order` [b t] for keys at `k_order` [b s]; [b h t s], at least float32."""
        return None


class Place:
    """A layer's hold on the position that it shares with others; not a module, so that nobody owns the position twice."""

    share: Share | None = None  # of the layer's attention, where that computes only some of the heads

    def __init__(self, name: str, position: Position) -> None:
        self.name = name
        self.position = position
        self.has_bias = "bias" in position.acts()

    def rotate(self, q: Tensor, k: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        at = step.places[self.name]
        if self.share is not None:  # what was prepared is whole, the heads are a share of them
            at = tree_map(lambda leaf: whole(leaf, self.share) if isinstance(leaf, Tensor) and leaf.requires_grad else leaf, at)
        return self.position.rotate(q, k, at)

    def bias(self, visible: Visible) -> Tensor | None:
        """The bias on the scores of this process's heads."""
        if not self.has_bias:
            return None
        bias = self.position.bias(visible.q_order, visible.k_order)
        if bias is None:
            return None
        return whole(bias, self.share) if bias.shape[1] == 1 else own_heads(bias, 1, self.share)  # one for all heads, or one each


class RotaryRows(NamedTuple):
    """Which rows of a projection a position turns: of each `size` rows those from `begin` on, for the width that is rotated."""

    size: int
    begin: int = 0


class Attention(Component):
    """Moves information between tokens, forwards in time only; any causal mixer may register here, a recurrent one too."""

    kind = "attention"
    honours: ClassVar[frozenset[str]] = frozenset()  # which acts of a position it carries out: "rotate", "bias"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.place: Place = copy.copy(site.place)  # a hold of its own: another mixer of the layer may be whole where this one is divided

    @classmethod
    def rotary_rows(cls, options: Any, site: Site) -> Mapping[str, RotaryRows] | None:
        """By name, such as q.weight, the parameters whose rows become what a position turns; None: that is not known.

        A checkpoint that has rotary pairs in the other layout is loaded by turning these rows round.
        """
        return None

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:  # [b t d] -> [b t d]
        """Mix the tokens of this call with each other and, through `state`, with those before; write them to `state`."""
        raise NotImplementedError

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> State | None:
        """Room to remember `capacity` tokens a row, written at most `chunk` at a time; None if nothing need be remembered."""
        return None


class Block(Component):
    """Wires attention and feed-forward, with their norms, into one layer."""

    kind = "block"
    attention: Attention
    feed_forward: FeedForward

    def __init__(self, options: ComponentOptions, site: Site, layer: LayerSpec) -> None:
        super().__init__(options, site)

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:  # [b t d] -> [b t d]
        raise NotImplementedError

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> State | None:
        return self.attention.new_state(batch, capacity, chunk=chunk, device=device, dtype=dtype)

    def wiring(self) -> Wiring | None:
        """What `forward` does with the stream, as data, for drawings; None if it is told by the code alone."""
        return None


class Embedding(Component):
    """Turns token ids into features."""

    kind = "embedding"
    weight: nn.Parameter  # [v d]

    def forward(self, tokens: Tensor) -> Tensor:  # [b t] -> [b t d]
        raise NotImplementedError


class Head(Component):
    """Turns features into logits, in at least float32."""

    kind = "head"

    def forward(self, x: Tensor) -> Tensor:  # [... d] -> [... v]
        raise NotImplementedError

    def tie(self, embedding: Embedding) -> None:
        """Share the embedding's table, if the options say so; called when the model is made and whenever sharing may have been lost."""
