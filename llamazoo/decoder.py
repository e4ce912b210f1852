"""The decoder: tokens -> embedding -> blocks -> norm -> head -> logits.

b batch, t tokens of this call, d model width, v vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.kinds import Block, Embedding, Head, Norm, Place, Position
from llamazoo.contract.state import State
from llamazoo.contract.step import IGNORED, Losses, Step
from llamazoo.decoder_state import DecoderState
from llamazoo.device import device_memory
from llamazoo.errors import ContextLengthError, InputError, ResourceLimitError
from llamazoo.rows import Rows
from llamazoo.spec.architecture import ArchitectureSpec

if TYPE_CHECKING:
    from llamazoo.parallel.division import Division
    from llamazoo.weights.load import LoadReport

__all__ = ["Decoder"]

LARGE = 1 << 20  # tokens that a state may hold before its bytes are counted against the device's
CHUNK = 512  # tokens that enter a bounded state at once, unless said otherwise


class Decoder(nn.Module):
    """A decoder language model, made of the parts that a spec names. Make one with `build_model` or `load_model`."""

    load_report: "LoadReport | None" = None  # what `load_model` found
    division: "Division | None" = None  # which share of the model this process holds, if it is divided

    def __init__(self, spec: ArchitectureSpec, *, only: Sequence[int] | None = None) -> None:
        """Shapes without values. `only` some of the layers is for counting what they hold."""
        super().__init__()
        self.spec = spec
        site = spec.site()
        self.embedding: Embedding = site.build(spec.embedding)
        self.place_names = tuple(spec.places())
        # Prefixed, since `global` is a good name for a position and a bad one for an attribute.
        self.positions = nn.ModuleDict({f"at_{name}": site.build(part) for name, part in spec.places().items()})
        self.blocks = nn.ModuleList(self._block(spec, number) for number in (range(spec.n_layers) if only is None else only))
        self.final_norm: Norm = site.build(spec.final_norm or spec.norm)
        self.head: Head = site.build(spec.head)
        self.link()

    def _block(self, spec: ArchitectureSpec, number: int) -> Block:
        layer = spec.layer(number)
        place = Place(layer.position, cast(Position, self.positions[f"at_{layer.position}"]))
        make = cast(type[Block], layer.block.component)
        return make(layer.block.options, spec.site(number, place), layer)

    def link(self) -> None:
        """Share again what is shared: a move from the meta device, or an assignment, makes copies."""
        self.head.tie(self.embedding)

    def to_empty(self, *, device: torch.device | str | int | None, recurse: bool = True) -> Self:
        super().to_empty(device=device, recurse=recurse)
        self.link()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        found = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.link()
        return found

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def forward(
        self,
        tokens: Tensor,
        state: DecoderState | None = None,
        valid: Tensor | None = None,
        segments: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits for the token after each of `tokens` [b t]: [b t v], or [b 1 v] with `last_only`; at least float32.

        With a `state`, the tokens continue what it holds, and are added to it; no gradients are kept then. `valid` [b t]
        is False at padding, wherever it stands. `segments` [b t] numbers the documents packed into a row: they do not see
        each other. Raises InputError or ContextLengthError before any work.
        """
        if isinstance(valid, Tensor) and isinstance(tokens, Tensor) and valid.dtype == torch.bool and valid.shape == tokens.shape:
            tokens = tokens.masked_fill(~valid, 0)  # what stands at padding does not matter, so it need not be a token
        self.check_tokens(tokens)
        if state is None:
            return self.logits(self._hidden(tokens, None, valid, segments, last_only))
        return self.advance(tokens, state, valid, segments, last_only)

    @torch.no_grad()
    def advance(
        self,
        tokens: Tensor,
        state: DecoderState,
        valid: Tensor | None = None,
        segments: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """`forward` on a state, for tokens that are known to be in the vocabulary: looking at them would make a GPU wait."""
        return self.logits(self._hidden(tokens, state, valid, segments, last_only))

    def core(self, tokens: Tensor, step: Step, states: Sequence[State | None]) -> Tensor:
        """Tokens [b t] through all blocks, to features [b t d] before the final norm; tensors only, so this is what compiles."""
        x = self.embedding(tokens)
        places = {}
        for name, position in zip(self.place_names, self.positions.values(), strict=True):
            assert isinstance(position, Position)
            places[name] = at = position.prepare(step.positions, horizon=step.horizon, dtype=x.dtype)
            x = position.embed(x, at)
        step = step.with_places(places)
        for block, state in zip(self.blocks, states, strict=True):
            x = block(x, step, state)
        return x

    def logits(self, x: Tensor) -> Tensor:  # [b t d] -> [b t v]
        y: Tensor = self.head(self.final_norm(x))
        return y

    def loss(self, tokens: Tensor, targets: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, in nats, of predicting `targets` [b t]; by default each next token of the same document.

        A target of -100 is not learned from. While training (`model.train()`, as a model is built), auxiliary losses of the
        layers are added; after `model.eval()` it is the cross-entropy alone. A scalar, at least float32.
        """
        self.check_tokens(tokens)
        given = targets is not None
        if targets is None:
            if segments is not None and segments.shape != tokens.shape:
                raise InputError(f"segments has the shape {list(segments.shape)}, tokens {list(tokens.shape)}")
            if tokens.shape[1] < 2:
                raise InputError("a row of one token has no next token to predict; give targets or longer rows")
            targets = F.pad(tokens[:, 1:], (0, 1), value=IGNORED)
            if segments is not None:
                same = F.pad(segments[:, 1:] == segments[:, :-1], (0, 1), value=False)
                targets = targets.masked_fill(~same, IGNORED)
        else:
            self._check_targets(tokens, targets)
        if (given or segments is not None) and not torch.compiler.is_compiling() and not bool((targets != IGNORED).any()):
            raise InputError("there is nothing to predict: every target is -100, or the last token of its document")
        losses = Losses() if self.training else None
        logits = self.logits(self._hidden(tokens, None, None, segments, False, losses))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)
        for extra in losses.take().values() if losses is not None else ():
            loss = loss + extra
        return loss

    def new_state(self, batch: int, capacity: int | None = None, *, chunk: int = CHUNK) -> DecoderState:
        """Room to remember `capacity` tokens (max_seq_len unless given) in each of `batch` rows, allocated now and once.

        Layers with a window remember window + chunk - 1; longer inputs then enter in chunks of `chunk`.
        """
        capacity = self.spec.max_seq_len if capacity is None else capacity
        for name, number in (("batch", batch), ("capacity", capacity), ("chunk", chunk)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise InputError(f"{name} is a whole number from 1, found {number!r}")
        if capacity > self.spec.max_seq_len:
            raise ContextLengthError(
                f"a cache of {capacity} tokens is longer than the model's context, max_seq_len {self.spec.max_seq_len}"
            )
        device, tokens = self.device, batch * capacity
        if tokens > LARGE:  # the host's part is quick, but so are most states
            needed = sum(s.nbytes for s in self._states(batch, capacity, chunk, torch.device("meta")) if s is not None)
            if needed > device_memory(device):
                limit = f"the memory of {device} is {device_memory(device)} bytes"
                raise ResourceLimitError(f"a state of {batch} rows of {capacity} tokens needs {needed} bytes; {limit}")
        return DecoderState(self._states(batch, capacity, chunk, device), batch, capacity, chunk, device, self.spec, self.dtype)

    @torch.inference_mode(False)  # a state made in inference mode could not be used outside
    @torch.no_grad()
    def _states(self, batch: int, capacity: int, chunk: int, device: torch.device) -> list[State | None]:
        blocks = (cast(Block, block) for block in self.blocks)
        return [block.new_state(batch, capacity, chunk=chunk, device=device, dtype=self.dtype) for block in blocks]

    def check_tokens(self, tokens: Tensor) -> None:
        """Raise InputError unless these are ids of the vocabulary, [b t], at least one a row, on the model's device."""
        if not isinstance(tokens, Tensor):
            raise InputError(f"tokens are an int64 tensor [batch tokens], found {type(tokens).__name__}")
        if tokens.dtype not in (torch.int64, torch.int32):
            raise InputError(f"tokens are integer ids, found {tokens.dtype}")
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise InputError(f"tokens have the shape [batch tokens], at least one token a row; found {list(tokens.shape)}")
        if tokens.device != self.device:
            raise InputError(f"tokens are on {tokens.device}, the model is on {self.device}")
        if torch.compiler.is_compiling() or tokens.is_meta:
            return
        low, high = _ends(tokens)
        if low < 0 or high >= self.spec.vocab_size:
            wrong = low if low < 0 else high
            raise InputError(f"token id {wrong} is outside the vocabulary, 0 to {self.spec.vocab_size - 1}")

    def _check_targets(self, tokens: Tensor, targets: Tensor) -> None:
        if targets.shape != tokens.shape:
            raise InputError(f"targets have the shape {list(targets.shape)}, tokens {list(tokens.shape)}")
        if targets.dtype not in (torch.int64, torch.int32):
            raise InputError(f"targets are integer ids, found {targets.dtype}")
        if torch.compiler.is_compiling():
            return
        low, high = _ends(targets.masked_fill(targets == IGNORED, 0))
        if low < 0 or high >= self.spec.vocab_size:
            wrong = low if low < 0 else high
            raise InputError(f"target {wrong} is outside the vocabulary, 0 to {self.spec.vocab_size - 1}, and not {IGNORED}")

    def _hidden(
        self,
        tokens: Tensor,
        state: DecoderState | None,
        valid: Tensor | None,
        segments: Tensor | None,
        last_only: bool,
        losses: Losses | None = None,
    ) -> Tensor:
        """The host's part of a call: limits, padding moved last, slices for bounded states. -> [b t d], or [b 1 d]"""
        if state is not None:
            state.check_model(self.spec, self.dtype, self.device)
        rows = Rows.read(tokens, state, valid, segments, self.spec.max_seq_len)
        states = state.layers if state is not None else [None] * len(self.blocks)
        limit = rows.width
        for layer in states:
            if layer is not None and layer.longest_write is not None:
                limit = min(limit, layer.longest_write)
        pieces = []
        for first in range(0, rows.width, limit):
            piece, step = rows.step(first, min(first + limit, rows.width))
            if losses is not None:
                step = replace(step, losses=losses)
            pieces.append(self.core(piece, step, states))
        if state is not None:
            state.advanced(rows.ends, rows.last_segment(), rows.last_begin())
        x = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        return rows.last(x) if last_only else rows.restored(x)


def _ends(tokens: Tensor) -> tuple[int, int]:
    """The lowest and the highest id. A few ids on the CPU are read faster than operators are called on them."""
    if tokens.device.type == "cpu" and tokens.numel() <= 1024:
        ids = [i for row in tokens.tolist() for i in row]
        return min(ids), max(ids)
    low, high = tokens.aminmax()
    return int(low), int(high)
